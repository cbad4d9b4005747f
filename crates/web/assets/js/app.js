// What all pages do: menus that close, texts that are copied, dialogs, and words for whoever cannot see a change.

document.documentElement.classList.add("js");

const said = document.getElementById("said");
let silence;

/** Shows a few words at the foot of the page for a moment, and reads them out. */
export function say(words) {
  said.textContent = words;
  clearTimeout(silence);
  silence = setTimeout(() => (said.textContent = ""), 2500);
}

/** Copies `text`, and says so. */
export async function copy(text) {
  await navigator.clipboard.writeText(text);
  say(said.dataset.copied);
}

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  const copier = event.target.closest("[data-copy]");
  if (copier) copy(document.querySelector(copier.dataset.copy).textContent);
  const opener = event.target.closest("[data-opens]");
  if (opener) document.querySelector(opener.dataset.opens).showModal();
  const closer = event.target.closest("[data-closes]");
  if (closer) closer.closest("dialog").close();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = document.querySelector("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
}, true);
