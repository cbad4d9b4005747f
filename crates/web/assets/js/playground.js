// The playground: pictures dropped and pasted, seeds, adapters, links, and requests that are watched until they end.

import { copy, say } from "./app.js";
import { Painter } from "./mask.js";

const form = () => document.getElementById("form");

// Sliders and the numbers beside them say the same.
document.addEventListener("input", (event) => {
  const slider = event.target.closest("[data-slider]");
  if (!slider) return;
  for (const other of slider.querySelectorAll("input")) {
    if (other !== event.target) other.value = event.target.value;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form()) {
    event.preventDefault();
    form().requestSubmit(form().querySelector("[data-generate]"));
  }
});

// Seeds: one that is locked stays, any other is drawn anew for each request.
const draw = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

function lock(seed, locked) {
  seed.querySelector("[data-lock]").setAttribute("aria-pressed", locked);
}

document.addEventListener("click", async (event) => {
  const seed = event.target.closest("[data-seed]");
  if (event.target.closest("[data-dice]")) {
    seed.querySelector("input").value = draw();
  } else if (event.target.closest("[data-lock]")) {
    const button = event.target.closest("[data-lock]");
    const locked = button.getAttribute("aria-pressed") !== "true";
    const input = seed.querySelector("input");
    if (locked && !input.value) input.value = document.querySelector("[data-seed-used]")?.textContent ?? draw();
    lock(seed, locked);
  }

  const used = event.target.closest("[data-use-seed]");
  const own = document.querySelector("[data-seed]");
  if (used && own) {
    own.querySelector("input").value = used.dataset.useSeed;
    lock(own, true);
  }

  if (event.target.closest("[data-link]")) copy(new URL(address(), location).href);
  if (event.target.closest("[data-code]")) showCode(event);
  adapters(event);
});

// A seed that somebody typed is meant to stay.
document.addEventListener("change", (event) => {
  const seed = event.target.closest("[data-seed]");
  if (seed && event.target.matches("input")) lock(seed, event.target.value !== "");
});

document.addEventListener("submit", (event) => {
  if (event.target !== form()) return;
  const seed = form().querySelector("[data-seed]");
  if (seed && seed.querySelector("[data-lock]").getAttribute("aria-pressed") !== "true") {
    seed.querySelector("input").value = "";
  }
}, true);

/** The address of this form as it is filled in: what is empty, or as it comes, is left out. */
function address(path = location.pathname) {
  const query = new URLSearchParams();
  for (const element of form().elements) {
    if (!element.name || element.type === "file" || element.type === "submit") continue;
    if (element.type === "hidden" || element.disabled) continue;
    const chosen = element.type === "radio" || element.type === "checkbox";
    if (element.type === "checkbox") {
      if (element.checked !== element.defaultChecked || query.has(element.name)) query.set(element.name, element.checked);
      continue;
    }
    if (chosen && !element.checked) continue;
    if (!chosen && element.value === "") continue;
    query.set(element.name, element.value);
  }
  if (query.get("image_size") !== "custom") {
    query.delete("image_size.width");
    query.delete("image_size.height");
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

// Other endpoints are opened with what was filled in here.
document.addEventListener("click", (event) => {
  const other = event.target.closest("[data-carry]");
  if (other && form()) other.href = address(other.pathname);
}, true);

async function showCode(event) {
  event.preventDefault();
  const answer = await fetch(event.target.closest("[data-code]").formAction, {
    method: "POST",
    headers: { "HX-Request": "true" },
    body: new FormData(form()),
  });
  document.getElementById("code-sheet").innerHTML = await answer.text();
  document.getElementById("code").showModal();
}

// Adapters: empty rows are shown one after the other.
function adapters(event) {
  const list = event.target.closest("[data-loras]");
  if (!list) return;
  if (event.target.closest("[data-add]")) {
    const row = list.querySelector(".lora[data-empty]");
    row?.removeAttribute("data-empty");
    row?.querySelector("input").focus();
  }
  const row = event.target.closest("[data-remove]")?.closest(".lora");
  if (row) {
    row.querySelector("input").value = "";
    if (row !== list.querySelector(".lora")) row.setAttribute("data-empty", "");
  }
  list.querySelector("[data-add]").hidden = !list.querySelector(".lora[data-empty]");
}

// Pictures are sent ahead of their form, so that sending it again is quick.
let sending = 0;

async function upload(file, name) {
  sending += 1;
  try {
    const body = new FormData();
    body.append("picture", file, name);
    const answer = await fetch("/playground/upload", { method: "POST", body, headers: { "HX-Request": "true" } });
    if (!answer.ok) throw new Error(await answer.text());
    return (await answer.json()).path;
  } finally {
    sending -= 1;
    if (sending === 0) document.dispatchEvent(new Event("sent"));
  }
}

/** The place for a picture: shows it, and takes files that are chosen, dropped or pasted. */
function place(field) {
  const [drop, chooser, text] = [".drop", "input.file", "input[type=text]"].map((each) => field.querySelector(each));
  const image = drop.querySelector("img");
  const remove = drop.querySelector("[data-remove]");

  const show = (source) => {
    image.hidden = remove.hidden = !source;
    if (source) image.src = source;
    else image.removeAttribute("src");
    field.dispatchEvent(new CustomEvent("picture", { bubbles: true, detail: source }));
  };

  const take = async (file) => {
    if (!file?.type.startsWith("image/")) return;
    show(URL.createObjectURL(file));
    drop.dataset.busy = "";
    try {
      text.value = await upload(file, file.name || "picture.png");
    } catch {
      show("");
      say(field.dataset.failed);
    }
    delete drop.dataset.busy;
  };

  chooser.addEventListener("change", () => {
    take(chooser.files[0]);
    chooser.value = "";
  });
  text.addEventListener("change", () => show(text.value.startsWith("/files/") ? text.value : ""));
  remove.addEventListener("click", () => {
    text.value = "";
    show("");
  });
  drop.addEventListener("click", (event) => event.target.closest("button") || chooser.click());
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.dataset.over = "";
  });
  drop.addEventListener("dragleave", () => delete drop.dataset.over);
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    delete drop.dataset.over;
    take(event.dataTransfer.files[0]);
  });
  field.takes = take;
}

document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
  const field = document.querySelector("[data-picture]");
  if (file && field) {
    event.preventDefault();
    field.takes(file);
  }
});

/** Masks are painted over the first picture of the form. */
function paint(field) {
  const picture = document.querySelector("[data-picture]");
  if (!picture) return;
  const text = field.querySelector("input[type=text]");
  const painter = new Painter(field.querySelector(".painter"), async (blob) => {
    try {
      text.value = blob ? await upload(blob, "mask.png") : "";
    } catch {
      say(field.dataset.failed);
    }
  });
  picture.addEventListener("picture", (event) => painter.over(event.detail));
  const image = picture.querySelector(".drop img");
  if (!image.hidden) painter.over(image.src, true);
}

// Nothing is sent before its pictures are.
document.addEventListener("submit", (event) => {
  if (event.target !== form() || sending === 0) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const submitter = event.submitter;
  document.addEventListener("sent", () => form().requestSubmit(submitter), { once: true });
}, true);

/** A request on its way. It opens its events when it comes into the page, and closes them when it goes. */
class LiveRun extends HTMLElement {
  connectedCallback() {
    const find = (name) => this.querySelector(`[data-${name}]`);
    this.events = new EventSource(this.dataset.events);
    this.events.addEventListener("state", (event) => (find("status").textContent = JSON.parse(event.data).text));
    this.events.addEventListener("log", (event) => {
      const { message, level } = JSON.parse(event.data);
      const line = document.createElement("li");
      line.textContent = message;
      line.dataset.level = level;
      if (!this.told) find("logs").replaceChildren();
      this.told = true;
      find("logs").append(line);
    });
    this.events.addEventListener("preview", (event) => {
      const { picture, step, of } = JSON.parse(event.data);
      find("preview").src = picture;
      find("preview").hidden = false;
      find("progress").max = of;
      find("progress").value = step;
    });
    this.events.addEventListener("end", () => this.end());
  }

  disconnectedCallback() {
    this.events.close();
  }

  async end() {
    this.events.close();
    const answer = await fetch(this.dataset.page, { headers: { "HX-Request": "true", Accept: "text/html" } });
    const holder = document.createElement("div");
    holder.innerHTML = await answer.text();
    const opened = this.querySelector("details.logs")?.open;
    const parts = [...holder.children];
    this.replaceWith(...parts);
    parts.forEach((part) => htmx.process(part));
    if (opened) document.querySelector("#result details.logs, .alone details.logs").open = true;
    htmx.trigger(document.body, "made");
  }
}

customElements.define("live-run", LiveRun);

// A picture from elsewhere brings its parameters along.
document.querySelector("[data-reader]")?.addEventListener("change", (event) => event.target.form.requestSubmit());

/** Prepares fields that are new in the page. */
function prepare() {
  for (const field of document.querySelectorAll("[data-picture]:not([data-ready])")) {
    field.dataset.ready = "";
    place(field);
  }
  for (const field of document.querySelectorAll("[data-mask]:not([data-ready])")) {
    field.dataset.ready = "";
    paint(field);
  }
}

prepare();
// On a phone the answer is below the form: whoever sends it wants to see it.
document.addEventListener("htmx:after:swap", () => {
  prepare();
  document.querySelector("#form [aria-invalid]")?.focus();
  const run = document.querySelector("#result live-run");
  if (run && run.getBoundingClientRect().top > innerHeight * 0.6) run.scrollIntoView({ block: "center" });
});
