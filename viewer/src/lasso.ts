/** Drawing a region, by pointer or, as a rectangle, by keyboard. */
import { byId, say } from "./dom";
import type { Lens } from "./camera";
import { rounded, simplified } from "./region";

const STEP = 0.05; // fraction of the panel by which an arrow key moves or widens the rectangle

export class Lasso {
  on = false;
  /** The region being drawn, in data units. */
  draft: number[] | null = null;
  /** Centre and half sides of the keyboard's rectangle. */
  private box: { x: number; y: number; w: number; h: number } | null = null;

  constructor(private readonly changed: () => void, private readonly finished: (polygon: number[]) => void) {}

  /** Start or stop; with the keyboard, drawing starts with a rectangle. */
  toggle(lens: Lens, byKeyboard: boolean): void {
    if (this.on) this.stop();
    else this.start(lens);
    if (byKeyboard) this.rectangle();
  }

  private start(lens: Lens): void {
    this.on = true;
    const [x0, y0, x1, y1] = lens.seen();
    this.box = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, w: (x1 - x0) / 8, h: (y1 - y0) / 8 };
    this.tell("Draw around cells, or move the rectangle with the arrow keys, resize it with Shift and the arrow keys, and press Enter.");
  }

  stop(): void {
    this.on = false;
    this.box = this.draft = null;
    this.tell(null);
  }

  /** Move the rectangle by the keyboard, or with `resize` change its size. */
  arrow(dx: number, dy: number, resize: boolean, lens: Lens): void {
    if (!this.box) return;
    const [x0, y0, x1, y1] = lens.seen();
    const [stepX, stepY] = [dx * STEP * (x1 - x0), dy * STEP * (y1 - y0)];
    if (resize) {
      this.box.w = Math.max(STEP * 0.2 * (x1 - x0), this.box.w + stepX / 2);
      this.box.h = Math.max(STEP * 0.2 * (y1 - y0), this.box.h + stepY / 2);
    } else {
      this.box.x += stepX;
      this.box.y += stepY;
    }
    this.rectangle();
  }

  /** The pointer's path so far. */
  trace(path: number[], done: boolean): void {
    this.box = null;
    this.draft = path;
    if (done) this.finish();
    else this.changed();
  }

  /** Close the region; false if none is being drawn. */
  finish(): boolean {
    if (!this.draft) return false;
    const polygon = rounded(simplified(this.draft));
    this.stop();
    if (polygon.length >= 6) this.finished(polygon);
    return true;
  }

  private rectangle(): void {
    if (!this.box) return;
    const { x, y, w, h } = this.box;
    this.draft = [x - w, y - h, x + w, y - h, x + w, y + h, x - w, y + h];
    this.changed();
  }

  private tell(text: string | null): void {
    byId("lasso").setAttribute("aria-pressed", String(this.on));
    byId("panels").classList.toggle("lassoing", this.on);
    if (text) say(text);
    this.changed();
  }
}
