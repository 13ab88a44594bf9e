"""From batches to Gram matrices without storing gradients; ``tugofwar.record`` is the way in.

``parts`` says what is measured, ``capture`` what a backward pass leaves behind, ``passes`` runs and verifies
the batches, ``store`` keeps what they leave, ``rebuild`` and ``products`` turn it into Gram matrices.
"""
