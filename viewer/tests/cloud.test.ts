import { describe, expect, it } from "vitest";
import { cellsInSight, inOrder, makeCloud, MISSING, randomNumbers, runsInSight } from "../src/cloud";

function tissue(cells: number): Float32Array {
  const random = randomNumbers(7);
  return Float32Array.from({ length: 2 * cells }, () => (random() / 2 ** 32) * 1000);
}

describe("the drawing order", () => {
  it("holds every placed cell once, with its place", () => {
    const positions = tissue(50_000);
    positions[2 * 17] = NaN;
    positions[2 * 99 + 1] = NaN;
    const { order, places } = makeCloud(positions);
    expect(order.length).toBe(49_998);
    expect(new Set(order).size).toBe(49_998);
    expect(order.includes(17)).toBe(false);
    for (const at of [0, 1, 20_000, 49_997]) {
      expect([places[2 * at], places[2 * at + 1]]).toEqual([positions[2 * order[at]], positions[2 * order[at] + 1]]);
    }
  });

  it("is the same in every visit", () => {
    expect(makeCloud(tissue(3000)).order).toEqual(makeCloud(tissue(3000)).order);
  });

  it("has tiles that hold their cells", () => {
    const { tiles, places } = makeCloud(tissue(40_000));
    expect(tiles.reduce((sum, tile) => sum + tile.count, 0)).toBe(40_000);
    for (const { start, count, box } of tiles) {
      for (let at = start; at < start + count; at++) {
        expect(places[2 * at] >= box[0] - 1e-3 && places[2 * at] <= box[2] + 1e-3).toBe(true);
      }
    }
  });

  it("begins with a fair sample of the tissue", () => {
    const cloud = makeCloud(tissue(100_000));
    const xs: number[] = [];
    for (const { first, count } of runsInSight(cloud, [0, 0, 1000, 1000], 0, 0.1)) {
      for (let at = first; at < first + count; at++) xs.push(cloud.places[2 * at]);
    }
    expect(xs.length).toBeGreaterThan(9_900);
    const mean = xs.reduce((sum, x) => sum + x, 0) / xs.length;
    expect(Math.abs(mean - 500)).toBeLessThan(5 * (289 / Math.sqrt(xs.length))); // five standard errors
  });

  it("draws only tiles in sight, and parts that make the whole", () => {
    const cloud = makeCloud(tissue(100_000));
    expect(cellsInSight(cloud, [0, 0, 1000, 1000])).toBe(100_000);
    expect(cellsInSight(cloud, [0, 0, 100, 100])).toBeLessThan(20_000);
    expect(cellsInSight(cloud, [2000, 2000, 3000, 3000])).toBe(0);
    const parts = [[0, 0.3], [0.3, 0.71], [0.71, 1]].flatMap(([from, to]) => runsInSight(cloud, [0, 0, 1000, 1000], from, to));
    expect(parts.reduce((sum, run) => sum + run.count, 0)).toBe(100_000);
  });

  it("knows the distance between neighbours of a lattice", () => {
    const lattice = Float32Array.from({ length: 2 * 10_000 }, (_, at) => 10 * (at % 2 ? Math.floor(at / 200) : (at >> 1) % 100));
    expect(makeCloud(lattice).spacing).toBeGreaterThan(9);
    expect(makeCloud(lattice).spacing).toBeLessThan(11);
  });

  it("bears no cell, one cell and cells in one place", () => {
    expect(makeCloud(new Float32Array(0)).tiles).toEqual([]);
    expect(makeCloud(Float32Array.of(3, 4)).order).toEqual(Uint32Array.of(0));
    expect(makeCloud(Float32Array.of(3, 4, 3, 4, 3, 4)).tiles[0].count).toBe(3);
  });
});

describe("values in drawing order", () => {
  it("stand with their cells, missing ones marked", () => {
    const order = Uint32Array.of(2, 0, 1);
    const marked = Math.fround(MISSING);
    expect([...inOrder(Float32Array.of(1, NaN, 3), order)]).toEqual([3, 1, marked]);
    expect([...inOrder(Uint16Array.of(1, 65535, 0), order)]).toEqual([0, 1, marked]);
  });
});
