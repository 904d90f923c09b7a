import { describe, expect, it } from "vitest";
import { barLength, fitted, Lens, LEAST_ZOOM, MOST_ZOOM, type Bounds } from "../src/camera";

const BOUNDS: Bounds = [0, 0, 100, 50];
const SIZE = { width: 200, height: 200 };

describe("the camera", () => {
  it("fits the bounds into the panel, by hand", () => {
    const lens = new Lens(fitted(BOUNDS), BOUNDS, SIZE);
    expect(lens.scale).toBeCloseTo(0.92 * 2);
    expect(lens.toScreen(50, 25)).toEqual([100, 100]);
    expect(lens.toScreen(0, 0)[0]).toBeCloseTo(8);
  });

  it("leads from the screen back to the data", () => {
    const lens = new Lens({ x: 3, y: 4, z: 2.5 }, BOUNDS, SIZE);
    const [x, y] = lens.toData(...lens.toScreen(17, 29));
    expect(x).toBeCloseTo(17);
    expect(y).toBeCloseTo(29);
  });

  it("leaves the point under the pointer where it is", () => {
    const lens = new Lens(fitted(BOUNDS), BOUNDS, SIZE);
    const [x, y] = lens.toData(150, 30);
    const closer = new Lens(lens.zoomed(1.7, 150, 30), BOUNDS, SIZE);
    expect(closer.toScreen(x, y)[0]).toBeCloseTo(150);
    expect(closer.toScreen(x, y)[1]).toBeCloseTo(30);
    const moved = new Lens(lens.panned(10, -5), BOUNDS, SIZE);
    expect(moved.toScreen(x, y)).toEqual([expect.closeTo(160), expect.closeTo(25)]);
  });

  it("has ends", () => {
    const lens = new Lens(fitted(BOUNDS), BOUNDS, SIZE);
    expect(lens.zoomed(99, 0, 0).z).toBe(MOST_ZOOM);
    expect(lens.zoomed(-99, 0, 0).z).toBe(LEAST_ZOOM);
  });

  it("bears a tissue of one cell", () => {
    expect(new Lens(fitted([5, 5, 5, 5]), [5, 5, 5, 5], SIZE).toScreen(5, 5)).toEqual([100, 100]);
  });

  it("has a round scale bar", () => {
    expect(barLength(1, 90)).toBe(50);
    expect(barLength(2, 90)).toBe(20);
    expect(barLength(0.01, 100)).toBe(10000);
  });
});
