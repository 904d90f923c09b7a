/**
 * The pictures of all panels, with one camera.
 *
 * While the camera moves, each frame draws as many cells of the fixed random order as its time allows (`pace`).
 * At rest every cell is drawn, in parts over several frames on a picture that is shown once it is whole, so that
 * a new movement never waits for it.
 */
import { Lens, fitted, type Bounds, type Camera } from "./camera";
import { cellsInSight, runsInSight, type Cloud } from "./cloud";
import type { Colour } from "./colours";
import { asUnit, type Held, type Painter } from "./painter";
import { Pace } from "./pace";

const REST = 140; // milliseconds without movement after which all cells are drawn
const LEAST_PART = 100_000; // cells drawn per frame at rest
const MOST_SIZE = 15; // largest size of a point on the screen, in pixels

/** A cloud in a panel: where it is stored, and how it is drawn. */
export interface Layered {
  cloud: Cloud;
  held: Held;
  limits: [number, number];
  coded: boolean;
  plain: boolean;
  missing: Colour;
  /** Size of its points, relative to the distance between neighbours. */
  swell: number;
}

export interface Picture {
  painter: Painter;
  layers: Layered[];
  /** Progress of the picture at rest: complete layers, and the fraction of the next one. */
  done: number;
}

export class Scene {
  camera: Camera = { x: 0, y: 0, z: 0 };
  bounds: Bounds = [0, 0, 1, 1];
  ground: Colour = [255, 255, 255];
  dimming = false;
  readonly pace = new Pace();
  /** When the first picture was drawn in colours, in milliseconds since navigation. */
  firstPicture: number | null = null;
  onFrame: (lens: Lens) => void = () => undefined;
  private pictures: Picture[] = [];
  private size = { width: 1, height: 1 };
  private ratio = 1;
  private scheduled = false;
  private moved = false;
  private moving = false;
  private lastFrame = 0;
  private lastMove = 0;
  private asked = 0;
  private drawn = 0;
  private waiting: (() => void)[] = [];

  get lens(): Lens {
    return new Lens(this.camera, this.bounds, this.size);
  }

  get settled(): boolean {
    return !this.moved && !this.moving && this.pictures.every((picture) => picture.done >= picture.layers.length);
  }

  show(pictures: Picture[]): void {
    this.pictures = pictures;
    this.refresh();
  }

  resize(width: number, height: number, ratio: number): void {
    this.size = { width, height };
    this.ratio = ratio;
    for (const { painter } of this.pictures) painter.resize(Math.round(width * ratio), Math.round(height * ratio));
    this.sketch();
    this.refresh();
  }

  /** Move the camera; null fits everything. */
  look(camera: Camera | null): void {
    this.camera = camera ?? fitted(this.bounds);
    if (!this.moved) this.asked = performance.now();
    this.moved = true;
    this.schedule();
  }

  /** The content has changed, but the camera has not. */
  refresh(only?: Picture): void {
    for (const picture of only ? [only] : this.pictures) picture.done = 0;
    this.schedule();
  }

  /** Draw a sample now if all cells take longer; a new or resized picture shows it until it is complete. */
  sketch(): void {
    if (this.inSight() > this.part) this.sample();
  }

  private sample(): void {
    const seen = this.inSight();
    const part = Math.min(1, this.pace.budget / Math.max(1, seen));
    const thinned = Math.min(2.2, part ** -0.5); // a sample's points are larger
    for (const picture of this.pictures) {
      picture.painter.begin("screen", this.ground);
      for (const layer of picture.layers) this.drawLayer(picture, layer, { from: 0, to: part, swell: thinned });
    }
    this.drawn = Math.min(seen, this.pace.budget);
    this.noteFirst(this.pictures);
    this.onFrame(this.lens);
  }

  /** Resolves when the picture is at rest and complete. */
  whole(): Promise<void> {
    return this.settled ? Promise.resolve() : new Promise((resolve) => this.waiting.push(resolve));
  }

  /** Cells drawn per frame at rest: more if there is time, but a new movement must not wait for long. */
  private get part(): number {
    return Math.max(LEAST_PART, 3 * this.pace.budget);
  }

  /** A picture counts when the cells have their colours. */
  private noteFirst(pictures: Picture[]): void {
    if (pictures.some(({ layers }) => layers.some(({ plain }) => !plain))) this.firstPicture ??= performance.now();
  }

  private inSight(): number {
    const seen = this.seen();
    const each = this.pictures.map(({ layers }) => layers.map(({ cloud }) => cellsInSight(cloud, seen)));
    return each.flat().reduce((sum, cells) => sum + cells, 0);
  }

  private seen(): Bounds {
    const lens = this.lens;
    const edge = MOST_SIZE / lens.scale;
    const [x0, y0, x1, y1] = lens.seen();
    return [x0 - edge, y0 - edge, x1 + edge, y1 + edge];
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame((now) => {
      this.scheduled = false;
      this.frame(now);
    });
  }

  private frame(now: number): void {
    const took = now - this.lastFrame;
    if (this.moved) {
      if (!this.moving) this.pace.begin();
      else if (this.lastMove === now - took) this.pace.note(took, now - Math.max(this.lastFrame, this.asked), this.drawn);
      this.moved = false;
      this.moving = true;
      this.lastMove = now;
      for (const picture of this.pictures) picture.done = 0;
      this.sample();
    } else if (now - this.lastMove > Math.max(REST, 3 * this.pace.last)) {
      this.moving = false;
      this.refine();
    }
    this.lastFrame = now;
    if (this.settled) {
      for (const resolve of this.waiting.splice(0)) resolve();
    } else this.schedule();
  }

  /** Draw the next part of the first incomplete picture. */
  private refine(): void {
    const picture = this.pictures.find(({ done, layers }) => done < layers.length);
    if (!picture) return;
    picture.painter.begin("rest", picture.done === 0 ? this.ground : null);
    const at = Math.floor(picture.done);
    const layer = picture.layers[at];
    const from = picture.done - at;
    const to = Math.min(1, from + this.part / Math.max(1, cellsInSight(layer.cloud, this.seen())));
    this.drawLayer(picture, layer, { from, to, swell: 1 });
    picture.done = at + to;
    if (picture.done >= picture.layers.length) {
      picture.painter.show();
      this.noteFirst([picture]);
      this.onFrame(this.lens);
    }
  }

  private drawLayer(picture: Picture, layer: Layered, part: { from: number; to: number; swell: number }): void {
    const { scale } = this.lens;
    const runs = runsInSight(layer.cloud, this.seen(), part.from, part.to);
    picture.painter.draw(layer.held, runs, {
      centre: [this.camera.x, this.camera.y],
      scale: [(2 * scale) / this.size.width, (-2 * scale) / this.size.height],
      size: this.pointSize(layer, scale) * part.swell,
      limits: layer.limits,
      coded: layer.coded,
      plain: layer.plain,
      dimming: this.dimming && !layer.plain,
      missing: asUnit(layer.missing),
      ground: asUnit(this.ground),
    });
  }

  private pointSize(layer: Layered, scale: number): number {
    const spaced = layer.swell * layer.cloud.spacing * scale;
    return this.ratio * Math.min(MOST_SIZE, Math.max(1.2, spaced));
  }
}
