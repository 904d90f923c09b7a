/** The camera that all panels share: a centre in the data's units and a zoom in powers of two. Pure. */

export type Bounds = readonly [number, number, number, number];
export interface Size {
  width: number;
  height: number;
}
export interface Camera {
  x: number;
  y: number;
  /** 0 fits the bounds into the panel; 1 shows half as much. */
  z: number;
}

export const MOST_ZOOM = 14;
export const LEAST_ZOOM = -2;
const MARGIN = 0.92; // share of a panel that the whole tissue fills

/** Pixels per unit at which the bounds just fit. */
export function fitScale(bounds: Bounds, size: Size): number {
  const width = Math.max(bounds[2] - bounds[0], 1e-9);
  const height = Math.max(bounds[3] - bounds[1], 1e-9);
  return MARGIN * Math.max(Math.min(size.width / width, size.height / height), 1e-12);
}

export function fitted(bounds: Bounds): Camera {
  return { x: (bounds[0] + bounds[2]) / 2, y: (bounds[1] + bounds[3]) / 2, z: 0 };
}

/** The view of a panel of a given size; y increases downwards, as in an image. */
export class Lens {
  readonly scale: number;

  constructor(readonly camera: Camera, bounds: Bounds, readonly size: Size) {
    this.scale = fitScale(bounds, size) * 2 ** camera.z;
  }

  toScreen(x: number, y: number): [number, number] {
    return [
      (x - this.camera.x) * this.scale + this.size.width / 2,
      (y - this.camera.y) * this.scale + this.size.height / 2,
    ];
  }

  toData(px: number, py: number): [number, number] {
    return [
      (px - this.size.width / 2) / this.scale + this.camera.x,
      (py - this.size.height / 2) / this.scale + this.camera.y,
    ];
  }

  panned(dx: number, dy: number): Camera {
    return { x: this.camera.x - dx / this.scale, y: this.camera.y - dy / this.scale, z: this.camera.z };
  }

  /** Zoom by a step, leaving the point under (px, py) where it is. */
  zoomed(step: number, px: number, py: number): Camera {
    const z = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, this.camera.z + step));
    const [x, y] = this.toData(px, py);
    const shrink = 2 ** (this.camera.z - z);
    return { x: x + (this.camera.x - x) * shrink, y: y + (this.camera.y - y) * shrink, z };
  }

  /** The visible range in data units: x0, y0, x1, y1. */
  seen(): Bounds {
    const [x0, y0] = this.toData(0, 0);
    const [x1, y1] = this.toData(this.size.width, this.size.height);
    return [x0, y0, x1, y1];
  }
}

/** A round length (1, 2 or 5 times a power of ten) that is at most `pixels` long on the screen. */
export function barLength(scale: number, pixels: number): number {
  const most = pixels / scale;
  const power = 10 ** Math.floor(Math.log10(most));
  return power * (most >= 5 * power ? 5 : most >= 2 * power ? 2 : 1);
}
