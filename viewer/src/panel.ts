/** One panel: its canvas, its name, and its overlay. */
import { barLength, type Lens } from "./camera";
import { make, makeSvg } from "./dom";
import { Painter } from "./painter";
import type { Layered, Picture } from "./scene";
import { figure } from "./text";
import type { Layer } from "./view";

const BAR = 90; // maximum length of the scale bar, in pixels

export class Panel {
  readonly element: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  readonly picture: Picture;
  /** The cells, drawn over the tissue if there is one. */
  cells: Layered | null = null;
  tissue: Layered | null = null;
  /** Which values are uploaded, and whether any are missing. */
  filled = "";
  holdsMissing = false;
  private readonly title = make("span", { class: "title" });
  private readonly subject = make("span", { class: "subject" });
  private readonly note = make("p", { class: "note", hidden: true });
  private readonly bar = make("span", { class: "bar-line" });
  private readonly barText = make("span", { class: "bar-text" });
  private readonly region = makeSvg("polygon", { class: "region" });
  private readonly ring = makeSvg("circle", { class: "ring", r: "8" });
  private readonly over = makeSvg("svg", { class: "over", "aria-hidden": "true" });
  private readonly unit: string | null;
  private barScale = 0;

  constructor(readonly layer: Layer, unit: string | null) {
    this.unit = unit;
    this.canvas = make("canvas", { tabindex: "0", role: "img" });
    this.over.append(this.region, this.ring);
    const scaleBar = make("div", { class: "scale-bar", "aria-hidden": "true" }, this.bar, this.barText);
    const caption = make("figcaption", {}, this.title, this.subject);
    this.element = make("figure", { class: "panel", "data-layer": layer }, this.canvas, this.over, caption, this.note, scaleBar);
    this.picture = { painter: new Painter(this.canvas), layers: [], done: 0 };
  }

  /** Describe the panel, in its title and for screen readers. */
  name(title: string, subject: string, note: string | null = null): void {
    this.title.textContent = title;
    this.subject.textContent = subject;
    this.note.textContent = note ?? "";
    this.note.hidden = note === null;
    this.canvas.setAttribute("aria-label", `${title} ${subject}. ${note ?? "Every point is a cell."}`.trim());
  }

  arrange(): void {
    this.picture.layers = [this.tissue, this.cells].filter((layered) => layered !== null);
  }

  /** Move the overlay to the current camera position. */
  follow(lens: Lens, polygon: readonly number[] | null, cell: readonly [number, number] | null): void {
    this.over.toggleAttribute("hidden", !polygon && !cell); // an empty layer over the canvas costs time as well
    this.region.toggleAttribute("hidden", !polygon);
    const corners: string[] = [];
    for (let at = 0; polygon && at < polygon.length; at += 2) {
      corners.push(lens.toScreen(polygon[at], polygon[at + 1]).map((part) => part.toFixed(1)).join(","));
    }
    this.region.setAttribute("points", corners.join(" "));
    this.ring.toggleAttribute("hidden", !cell);
    const [x, y] = cell ? lens.toScreen(...cell) : [0, 0];
    this.ring.setAttribute("cx", x.toFixed(1));
    this.ring.setAttribute("cy", y.toFixed(1));
    if (lens.scale === this.barScale) return;
    this.barScale = lens.scale;
    const length = barLength(lens.scale, BAR);
    this.bar.style.width = `${length * lens.scale}px`;
    this.barText.textContent = `${figure(length)} ${this.unit === "um" ? "µm" : (this.unit ?? (length === 1 ? "unit" : "units"))}`;
  }

  close(): void {
    this.picture.painter.close();
    this.element.remove();
  }
}
