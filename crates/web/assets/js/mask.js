// A brush over a picture: what is painted is drawn anew. The mask is white on black, as large as the picture.

/** Canvases larger than this take longer than a stroke may. */
const SIDE_MAX = 2048;
/** After the last stroke, before the mask is sent. */
const PAUSE_MS = 300;

export class Painter {
  /** `changed` is given the mask as a PNG, or nothing where nothing is painted. */
  constructor(element, changed) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.changed = changed;
    this.erasing = false;
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => this.end());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    element.querySelector("[data-clear]").addEventListener("click", () => this.clear());
    element.querySelector("[data-erase]").addEventListener("click", (event) => {
      this.erasing = !this.erasing;
      event.target.setAttribute("aria-pressed", this.erasing);
    });
  }

  /** Paints over the picture at `source` from now on; over none, it hides. A mask that a link brought stays until it is painted over. */
  over(source, first = false) {
    this.element.hidden = !source;
    this.element.parentElement.querySelector("[data-first]").hidden = Boolean(source);
    if (!first) this.changed(null);
    if (!source) return;
    const image = new Image();
    image.onload = () => {
      const shrink = Math.min(1, SIDE_MAX / Math.max(image.naturalWidth, image.naturalHeight));
      this.canvas.width = Math.round(image.naturalWidth * shrink);
      this.canvas.height = Math.round(image.naturalHeight * shrink);
      this.picture = image;
      this.mask = new OffscreenCanvas(this.canvas.width, this.canvas.height);
      this.strokes = this.mask.getContext("2d");
      this.at = { x: this.canvas.width / 2, y: this.canvas.height / 2 };
      this.show();
    };
    image.src = source;
  }

  get brush() {
    const share = Number(this.element.querySelector("[data-brush]").value) / 400;
    return Math.max(2, share * Math.max(this.canvas.width, this.canvas.height));
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.canvas.width;
    const y = ((event.clientY - box.top) / box.height) * this.canvas.height;
    return { x, y };
  }

  begin(event) {
    if (!this.strokes || event.button > 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.stroke(this.last);
  }

  go(event) {
    if (this.last) this.stroke(this.place(event));
  }

  end() {
    if (!this.last) return;
    this.last = null;
    this.tell();
  }

  stroke(to) {
    const from = this.last ?? to;
    this.strokes.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    this.strokes.strokeStyle = "#fff";
    this.strokes.lineWidth = this.brush;
    this.strokes.lineCap = "round";
    this.strokes.beginPath();
    this.strokes.moveTo(from.x, from.y);
    this.strokes.lineTo(to.x, to.y + 0.01);
    this.strokes.stroke();
    if (this.last) this.last = to;
    this.show();
  }

  /** By keyboard: arrows move, blank or enter paints. */
  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.strokes) return;
    if (moves[event.key]) {
      const [x, y] = moves[event.key];
      this.at.x = Math.min(this.canvas.width, Math.max(0, this.at.x + (x * this.brush) / 2));
      this.at.y = Math.min(this.canvas.height, Math.max(0, this.at.y + (y * this.brush) / 2));
      this.show();
    } else if (event.key === " " || event.key === "Enter") {
      this.stroke(this.at);
      this.tell();
    } else {
      return;
    }
    event.preventDefault();
  }

  clear() {
    if (!this.strokes) return;
    this.strokes.clearRect(0, 0, this.mask.width, this.mask.height);
    this.show();
    this.tell();
  }

  show() {
    const { width, height } = this.canvas;
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(this.picture, 0, 0, width, height);
    const tint = new OffscreenCanvas(width, height);
    const tinted = tint.getContext("2d");
    tinted.drawImage(this.mask, 0, 0);
    tinted.globalCompositeOperation = "source-in";
    tinted.fillStyle = "#f0643c";
    tinted.fillRect(0, 0, width, height);
    this.context.globalAlpha = 0.6;
    this.context.drawImage(tint, 0, 0);
    this.context.globalAlpha = 1;
    if (document.activeElement === this.canvas) {
      this.context.strokeStyle = "#fff";
      this.context.lineWidth = Math.max(1, width / 300);
      this.context.beginPath();
      this.context.arc(this.at.x, this.at.y, this.brush / 2, 0, 2 * Math.PI);
      this.context.stroke();
    }
  }

  tell() {
    clearTimeout(this.pause);
    this.pause = setTimeout(async () => {
      const { width, height } = this.mask;
      const painted = this.strokes.getImageData(0, 0, width, height).data.some((value) => value > 0);
      if (!painted) return this.changed(null);
      const whole = new OffscreenCanvas(width, height);
      const context = whole.getContext("2d");
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, height);
      context.drawImage(this.mask, 0, 0);
      this.changed(await whole.convertToBlob({ type: "image/png" }));
    }, PAUSE_MS);
  }
}
