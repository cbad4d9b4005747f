// The gallery: pictures selected, seen large, compared, and read where they are dropped.

import { say } from "./app.js";

const several = () => document.getElementById("several");
const boxes = () => [...document.querySelectorAll("input[name=number]")];

/** What can be done with as many as are selected. */
function count() {
  const bar = several();
  if (!bar) return;
  const selected = boxes().filter((box) => box.checked).length;
  bar.toggleAttribute("data-any", selected > 0);
  bar.querySelector("[data-two]").disabled = selected !== 2;
  for (const button of bar.querySelectorAll("[data-some]")) button.disabled = selected === 0;
  if (selected > 0) bar.querySelector("[data-count]").textContent = bar.dataset.selected.replace("{}", selected);
}

document.addEventListener("change", (event) => {
  if (event.target.name === "number") count();
});

// The address says what is looked for, so that it can be kept and sent.
for (const kind of ["input", "change"]) {
  document.addEventListener(kind, (event) => {
    const form = event.target.closest("form[data-address]");
    if (!form) return;
    const asked = [...new FormData(form)].filter(([, value]) => value !== "");
    const query = new URLSearchParams(asked).toString();
    history.replaceState(null, "", query ? `${form.action}?${query}` : form.action);
  });
}

let lastBox;
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-none]")) {
    for (const box of boxes()) box.checked = false;
    count();
  }
  // With shift all between two are selected.
  if (event.target.name === "number") {
    const all = boxes();
    if (event.shiftKey && lastBox) {
      const [from, to] = [all.indexOf(lastBox), all.indexOf(event.target)].sort((a, b) => a - b);
      for (const box of all.slice(Math.max(from, 0), to + 1)) box.checked = event.target.checked;
      count();
    }
    lastBox = event.target;
  }
  const opened = event.target.closest("a.open");
  if (opened && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    show(opened);
  }
});

let shown;

function show(link) {
  const large = document.getElementById("large");
  const image = large.querySelector("img");
  const small = link.querySelector("img");
  shown = link;
  image.src = link.dataset.file;
  image.alt = small.alt;
  image.width = small.width;
  image.setAttribute("width", small.getAttribute("width"));
  image.setAttribute("height", small.getAttribute("height"));
  large.querySelector("[data-prompt]").textContent = small.alt;
  const facts = [link.dataset.model, link.dataset.size, link.dataset.seed];
  large.querySelector("[data-facts]").textContent = facts.filter(Boolean).join(" · ");
  large.querySelector("[data-request]").href = link.href;
  large.querySelector("[data-again]").hidden = !link.dataset.again;
  if (link.dataset.again) large.querySelector("[data-again]").href = link.dataset.again;
  large.querySelector("[data-download]").href = `${link.dataset.file}?download`;
  if (!large.open) large.showModal();
}

document.addEventListener("keydown", (event) => {
  const large = document.getElementById("large");
  if (!large?.open || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  const all = [...document.querySelectorAll("a.open")];
  const next = all[all.indexOf(shown) + (event.key === "ArrowRight" ? 1 : -1)];
  if (next) show(next);
});

/** Two pictures in one place: the slider and the pointer move the line between them. */
function compare(element) {
  const pair = element.querySelector(".pair");
  const range = element.querySelector("input[type=range]");
  const move = () => pair.style.setProperty("--at", `${range.value / 10}%`);
  range.addEventListener("input", move);
  const follow = (event) => {
    const box = pair.getBoundingClientRect();
    range.value = Math.round(((event.clientX - box.left) / box.width) * 1000);
    move();
  };
  pair.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    pair.setPointerCapture(event.pointerId);
    follow(event);
  });
  pair.addEventListener("pointermove", (event) => {
    if (pair.hasPointerCapture(event.pointerId)) follow(event);
  });
  move();
}

document.querySelectorAll("[data-compare]").forEach(compare);

// A picture that is dropped anywhere opens the form that made it.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (!file) return;
  const body = new FormData();
  body.append("picture", file, file.name);
  const answer = await fetch("/playground/read", { method: "POST", body, headers: { "HX-Request": "true" } });
  const to = answer.headers.get("HX-Redirect");
  if (to) location.assign(to);
  else say(new DOMParser().parseFromString(await answer.text(), "text/html").body.textContent.trim());
});

document.addEventListener("htmx:after:swap", count);
count();
