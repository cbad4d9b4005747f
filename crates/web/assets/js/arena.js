// Voting by keyboard: each button says which key presses it.

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.repeat) return;
  if (event.target.closest("input, textarea, select, summary, nav, .top")) return;
  // Enter on a link or button does what that says.
  if (event.key === "Enter" && event.target.closest("a, button")) return;
  const pressed = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!pressed) return;
  event.preventDefault();
  pressed.click();
});

// A second press while the first is under way would be a vote on nothing that anybody saw.
document.querySelector("form.verdicts")?.addEventListener("submit", (event) => {
  const form = event.currentTarget;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "1";
});
