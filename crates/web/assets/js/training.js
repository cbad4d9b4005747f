// Captions that save themselves, and a training that is looked at while it runs.

import { say } from "./app.js";

const captions = document.getElementById("captions");

/** Sends one caption, in the order in which they were written. */
let saving = Promise.resolve();
function save(field) {
  const body = new URLSearchParams({ [field.name]: field.value });
  saving = saving.then(async () => {
    const answer = await fetch(captions.action, { method: "POST", body, headers: { "hx-request": "true" } });
    if (answer.ok) field.defaultValue = field.value;
    field.toggleAttribute("aria-invalid", !answer.ok);
    say(answer.ok ? captions.dataset.saved : await answer.text());
  }, () => {});
}

captions?.addEventListener("change", (event) => {
  if (event.target.matches("textarea")) save(event.target);
});

const LOOK_MS = 1500;

/** Asks for the part that changes; not while somebody reads its table. */
async function look() {
  const live = document.getElementById("live");
  if (!live?.dataset.path) return;
  if (!document.hidden && !live.querySelector("details[open]")) {
    const answer = await fetch(live.dataset.path, { headers: { "hx-request": "true" } }).catch(() => null);
    if (answer?.ok) {
      const next = document.createElement("template");
      next.innerHTML = await answer.text();
      const fresh = next.content.firstElementChild;
      const focused = live.contains(document.activeElement);
      live.replaceWith(fresh);
      if (focused) fresh.querySelector("button, a")?.focus();
      // The end brings a log and an adapter: all of the page is another.
      if (!fresh.dataset.path) return location.reload();
    }
  }
  setTimeout(look, LOOK_MS);
}
setTimeout(look, LOOK_MS);

// What a trainer suggests stands in the empty fields.
const trainer = document.getElementById("trainer");
function suggest() {
  const { steps, rate } = trainer.selectedOptions[0].dataset;
  document.getElementById("steps").placeholder = steps;
  document.getElementById("learning_rate").placeholder = rate;
}
if (trainer) {
  trainer.addEventListener("change", suggest);
  suggest();
}
