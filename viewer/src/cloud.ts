/**
 * The order in which cells are drawn. Pure.
 *
 * Cells are sorted into tiles, in a fixed random order within each tile. The first part of every tile is then a fair
 * sample of the tissue, and tiles outside the view are not drawn. While the camera moves, such a sample is drawn.
 */
import type { Bounds } from "./camera";

export interface Tile {
  start: number;
  count: number;
  box: Bounds;
}

export interface Cloud {
  /** The cell at each position of the drawing order; cells without coordinates are left out. */
  order: Uint32Array;
  /** x, y in drawing order. */
  places: Float32Array;
  tiles: Tile[];
  bounds: Bounds;
  /** Typical distance between neighbours, in the data's units. */
  spacing: number;
}

const CELLS_PER_TILE = 8000;
const MOST_TILES_SIDE = 8;

/** A small generator of 32-bit numbers (mulberry32, public domain): the same sample in every visit. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

function placed(positions: Float32Array): Uint32Array {
  const found = new Uint32Array(positions.length / 2);
  let count = 0;
  for (let cell = 0; cell < found.length; cell++) {
    if (Number.isFinite(positions[2 * cell]) && Number.isFinite(positions[2 * cell + 1])) found[count++] = cell;
  }
  return found.subarray(0, count);
}

function shuffled(cells: Uint32Array): Uint32Array {
  const random = randomNumbers(1);
  for (let last = cells.length - 1; last > 0; last--) {
    const other = random() % (last + 1);
    const cell = cells[last];
    cells[last] = cells[other];
    cells[other] = cell;
  }
  return cells;
}

/** The bounding box of some cells with coordinates. */
export function boundsOf(positions: Float32Array, cells: Uint32Array): Bounds {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const cell of cells) {
    const x = positions[2 * cell];
    const y = positions[2 * cell + 1];
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
  }
  return cells.length ? [x0, y0, x1, y1] : [0, 0, 1, 1];
}

export function makeCloud(positions: Float32Array): Cloud {
  const cells = shuffled(placed(positions));
  const bounds = boundsOf(positions, cells);
  const side = Math.max(1, Math.min(MOST_TILES_SIDE, Math.round(Math.sqrt(cells.length / CELLS_PER_TILE))));
  const width = (bounds[2] - bounds[0]) / side || 1;
  const height = (bounds[3] - bounds[1]) / side || 1;
  const tileOf = (cell: number): number => {
    const column = Math.min(side - 1, Math.floor((positions[2 * cell] - bounds[0]) / width));
    const row = Math.min(side - 1, Math.floor((positions[2 * cell + 1] - bounds[1]) / height));
    return row * side + column;
  };

  const ends = new Uint32Array(side * side + 1);
  for (const cell of cells) ends[tileOf(cell) + 1]++;
  for (let tile = 0; tile < side * side; tile++) ends[tile + 1] += ends[tile];
  const next = ends.slice();
  const order = new Uint32Array(cells.length);
  for (const cell of cells) order[next[tileOf(cell)]++] = cell;

  const places = new Float32Array(2 * order.length);
  order.forEach((cell, at) => {
    places[2 * at] = positions[2 * cell];
    places[2 * at + 1] = positions[2 * cell + 1];
  });
  const tiles: Tile[] = [];
  for (let tile = 0; tile < side * side; tile++) {
    const count = ends[tile + 1] - ends[tile];
    const x = bounds[0] + (tile % side) * width;
    const y = bounds[1] + Math.floor(tile / side) * height;
    if (count) tiles.push({ start: ends[tile], count, box: [x, y, x + width, y + height] });
  }
  return { order, places, tiles, bounds, spacing: spacingOf(places, bounds) };
}

/** Estimated from the occupied part of the bounds, since tissue is rarely a rectangle. */
function spacingOf(places: Float32Array, bounds: Bounds): number {
  const count = places.length / 2;
  if (count < 2) return 1;
  const side = Math.max(1, Math.min(64, Math.floor(Math.sqrt(count / 8))));
  const width = (bounds[2] - bounds[0]) / side || 1;
  const height = (bounds[3] - bounds[1]) / side || 1;
  const held = new Uint8Array(side * side);
  for (let at = 0; at < count; at++) {
    const column = Math.min(side - 1, Math.floor((places[2 * at] - bounds[0]) / width));
    const row = Math.min(side - 1, Math.floor((places[2 * at + 1] - bounds[1]) / height));
    held[row * side + column] = 1;
  }
  const area = held.reduce((sum, one) => sum + one, 0) * width * height;
  return Math.sqrt(area / count);
}

/** Values of cells in drawing order; `MISSING` for missing values. */
export function inOrder(values: Float32Array | Uint16Array, order: Uint32Array): Float32Array {
  const ordered = new Float32Array(order.length);
  const coded = values instanceof Uint16Array;
  for (let at = 0; at < order.length; at++) {
    const value = values[order[at]];
    ordered[at] = (coded ? value === 65535 : Number.isNaN(value)) ? MISSING : value;
  }
  return ordered;
}

/** Represents a missing value in the shader, whose test for NaN is unreliable. */
export const MISSING = -1e38;

/** A part of the drawing order. */
export interface Run {
  first: number;
  count: number;
}

/** The part of each visible tile between two fractions; margin in data units. */
export function runsInSight(cloud: Cloud, seen: Bounds, from: number, to: number): Run[] {
  const runs: Run[] = [];
  for (const { start, count, box } of cloud.tiles) {
    if (box[2] < seen[0] || box[0] > seen[2] || box[3] < seen[1] || box[1] > seen[3]) continue;
    const first = start + Math.floor(from * count);
    const end = start + Math.floor(to * count);
    const last = runs.at(-1);
    if (end === first) continue;
    if (last && last.first + last.count === first) last.count += end - first;
    else runs.push({ first, count: end - first });
  }
  return runs;
}

export function cellsInSight(cloud: Cloud, seen: Bounds): number {
  return runsInSight(cloud, seen, 0, 1).reduce((sum, run) => sum + run.count, 0);
}
