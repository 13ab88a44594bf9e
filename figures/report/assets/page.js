// What belongs to the page as a whole: drawing what comes near, themes, search, contents.
const pictures = all("[data-picture]").map((article) => new Picture(article));

// ---- Drawn when they come near ----
const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const picture = pictures.find((item) => item.article === entry.target);
      if (entry.isIntersecting && !picture.drawn) picture.draw();
    }
  },
  { rootMargin: "500px 0px" },
);
pictures.forEach((picture) => near.observe(picture.article));
const redraw = () => pictures.filter((picture) => picture.drawn).forEach((picture) => picture.draw());

let width = innerWidth;
let waiting = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's address bar that comes and goes
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(redraw, 150);
});

one("#theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme !== "dark";
  setTheme(dark);
  try {
    localStorage.setItem("tugofwar-theme", dark ? "dark" : "light");
  } catch {
    // a page opened from a file may not remember
  }
  redraw();
});
preferred.addEventListener("change", () => {
  if (stored()) return;
  setTheme(preferred.matches);
  redraw();
});
let before = null;
addEventListener("beforeprint", () => {
  before = document.documentElement.dataset.theme;
  printing = true;
  setTheme(false);
  pictures.forEach((picture) => picture.draw());
});
addEventListener("afterprint", () => {
  printing = false;
  setTheme(before === "dark");
  redraw();
});

// ---- One picker for all pictures, where several have it ----
for (const label of ["Run", "Level"]) {
  const having = pictures.filter((picture) => picture.selects[picture.content.pickers.indexOf(label)]);
  const level = (picture) => picture.content.pickers.indexOf(label);
  const values = [...new Set(having.flatMap((picture) => picture.content.views.map((view) => view.at[level(picture)])))];
  if (having.length < 2) continue;
  const select = make("select", {}, make("option", { value: "", textContent: "as chosen in each" }), ...values.map((value) => make("option", { value, textContent: value })));
  select.dataset.everywhere = label;
  select.addEventListener("change", () => {
    if (select.value) having.forEach((picture) => picture.chooseByLabel(label, select.value));
  });
  one("#everywhere").append(make("label", {}, label, select));
  one("#everywhere").hidden = false;
}

// ---- Search ----
const search = one("#search");
function searched() {
  return one("#search").value.trim();
}
const words = new Map(pictures.map((picture) => [picture, null]));
function find() {
  const text = searched().toLowerCase();
  let shown = 0;
  for (const picture of pictures) {
    if (words.get(picture) === null) words.set(picture, picture.words());
    const hit = !text || words.get(picture).includes(text);
    picture.article.classList.toggle("filtered", !hit);
    one(`[data-entry="${CSS.escape(picture.content.name)}"]`)?.classList.toggle("filtered", !hit);
    shown += hit;
    picture.showTable();
  }
  let others = 0;
  for (const item of all("[data-search]")) {
    const hit = !text || item.textContent.toLowerCase().includes(text);
    item.classList.toggle("filtered", !hit);
    others += hit;
  }
  for (const run of all(".run")) {
    const name = one("h3", run).textContent.toLowerCase();
    const hit = !text || name.includes(text) || one("[data-search]:not(.filtered)", run);
    run.classList.toggle("filtered", !hit);
    for (const details of all("details", run)) {
      const some = one("[data-search]:not(.filtered)", details);
      details.classList.toggle("filtered", Boolean(text) && !some);
      details.open = Boolean(text) && Boolean(some);
    }
  }
  for (const section of all("main > section")) {
    const some = one(".picture:not(.filtered), .run:not(.filtered), .definitions > :not(.filtered)", section);
    section.classList.toggle("filtered", Boolean(text) && !some);
  }
  one("#found").textContent = text
    ? `${shown} of ${pictures.length} pictures, ${others} definitions and settings match “${searched()}”. Escape clears the search.`
    : "";
}
let typing = 0;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(find, 120);
});
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    search.value = "";
    find();
  }
});
addEventListener("keydown", (event) => {
  const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !writing) {
    event.preventDefault();
    search.focus();
  }
});

// ---- Contents ----
if (innerWidth <= 1000) one("#contents").open = false;
const links = new Map(all(".contents a").map((link) => [link.getAttribute("href").slice(1), link]));
const reading = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((item) => item.isIntersecting)) {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  },
  { rootMargin: "-15% 0px -75% 0px" },
);
all("main > section, [data-picture]").filter((item) => links.has(item.id)).forEach((item) => reading.observe(item));
for (const button of all(".more")) {
  button.addEventListener("click", () => {
    const open = button.parentElement.classList.toggle("all");
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "Show fewer" : button.dataset.all;
  });
  button.dataset.all = button.textContent;
}
// A link of a finding or a warning goes to the choices that it speaks of, too.
for (const link of all("a[data-at]")) {
  const picture = pictures.find((item) => `#${item.article.id}` === link.getAttribute("href"));
  const at = link.dataset.at;
  link.addEventListener("click", () => picture.show(picture.content.views.find((view) => JSON.stringify(view.at) === JSON.stringify(JSON.parse(at)))));
}
document.documentElement.dataset.ready = "yes";
