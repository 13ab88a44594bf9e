"""Run folders with an evaluation, without a model: answers that are right with a known share."""

import json

from unimed_model.scoring import Answer, save_tallies, tally

REFERENCES = {"CLS": "axial", "QA": "yes", "VQA": "left lung", "REG": "liver", "RG": "no acute finding"}


def answers(dataset, task, right, samples=20):
    """The first `right` of the samples are answered correctly, the others with a word that is never right."""
    reference = REFERENCES[task]
    return [
        Answer(
            str(index),
            dataset,
            task,
            reference if index < right else "wrong",
            reference,
            image_id=f"image {index // 2}",
        )
        for index in range(samples)
    ]


def write_evaluation(folder, tallies):
    folder.mkdir(parents=True)
    save_tallies(folder / "sample_statistics.parquet", tallies)
    (folder / "scores.json").write_text("{}")


def write_run(folder, right, tasks, parameters=1234):
    """A finished run: dataset -> number of right answers out of 20."""
    write_evaluation(folder / "evaluation", [tally(answers(name, tasks[name], count)) for name, count in right.items()])
    run = {"exit_reason": "finished", "parameters": {"connector": parameters, "llm": 9}}
    (folder / "run.json").write_text(json.dumps(run))


def write_record(out, table, seeds, datasets):
    out.mkdir(parents=True, exist_ok=True)
    record = {"table": table, "preset": "tiny", "seeds": seeds, "datasets": datasets}
    (out / "ablation.json").write_text(json.dumps(record))


def write_predictions(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
