import { describe, expect, it } from "vitest";
import { cellsWithin, contains, nearest, packBits, rounded, simplified } from "../src/region";

const SQUARE = [0, 0, 10, 0, 10, 10, 0, 10];
const HORSESHOE = [0, 0, 10, 0, 10, 10, 7, 10, 7, 3, 3, 3, 3, 10, 0, 10];

describe("a region", () => {
  it("contains what lies within, also where it is not convex", () => {
    expect(contains(SQUARE, 5, 5)).toBe(true);
    expect(contains(SQUARE, 11, 5)).toBe(false);
    expect(contains(HORSESHOE, 1, 9)).toBe(true);
    expect(contains(HORSESHOE, 5, 9)).toBe(false);
  });

  it("finds its cells; a cell without a place lies nowhere", () => {
    expect([...cellsWithin(SQUARE, Float32Array.of(1, 1, 12, 1, NaN, NaN, 9, 9))]).toEqual([1, 0, 0, 1]);
  });

  it("tells them as bits, the first cell in the lowest", () => {
    expect([...packBits(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 1, 0, 1))]).toEqual([129, 2]);
    expect(packBits(new Uint8Array(0)).length).toBe(0);
  });

  it("keeps its shape when it is simplified", () => {
    const circle = Array.from({ length: 400 }, (_, at) => {
      const angle = (2 * Math.PI * (at >> 1)) / 200;
      return 100 * (at % 2 ? Math.sin(angle) : Math.cos(angle));
    });
    const fewer = simplified(circle, 24);
    expect(fewer.length).toBe(48);
    expect(contains(fewer, 95, 0)).toBe(true);
    expect(contains(fewer, 0, -95)).toBe(true);
    expect(contains(fewer, 80, 80)).toBe(false);
    expect(simplified(SQUARE, 24)).toEqual(SQUARE);
  });

  it("is rounded as in the address", () => {
    expect(rounded([1234.56789, 0.000123456789])).toEqual([1234.57, 0.000123457]);
  });
});

describe("the nearest cell", () => {
  const positions = Float32Array.of(0, 0, 5, 5, 6, 5, NaN, NaN);
  it("is within reach and not hidden", () => {
    expect(nearest(positions, [5.2, 5], 1, null)).toBe(1);
    expect(nearest(positions, [5.2, 5], 1, Uint8Array.of(0, 1, 0, 0))).toBe(2);
    expect(nearest(positions, [50, 50], 1, null)).toBe(-1);
    expect(nearest(positions, [50, 50], Infinity, null)).toBe(2);
  });
});
