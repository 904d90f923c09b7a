/** A region: a closed polygon in data units, the cells inside it, and a bit for each cell. Pure. */

export type Polygon = readonly number[]; // x, y, x, y ...

const MOST_CORNERS = 48;

/** Whether a point is inside (even-odd rule). */
export function contains(polygon: Polygon, x: number, y: number): boolean {
  let inside = false;
  for (let i = 0, j = polygon.length - 2; i < polygon.length; j = i, i += 2) {
    const [xi, yi, xj, yj] = [polygon[i], polygon[i + 1], polygon[j], polygon[j + 1]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/** 1 for each cell inside the polygon, 0 for the others and for cells without coordinates. */
export function cellsWithin(polygon: Polygon, positions: Float32Array): Uint8Array {
  const xs = polygon.filter((_, at) => at % 2 === 0);
  const ys = polygon.filter((_, at) => at % 2 === 1);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const within = new Uint8Array(positions.length / 2);
  for (let cell = 0; cell < within.length; cell++) {
    const x = positions[2 * cell];
    const y = positions[2 * cell + 1];
    if (x >= x0 && x <= x1 && y >= y0 && y <= y1 && contains(polygon, x, y)) within[cell] = 1;
  }
  return within;
}

/** One bit per cell; the first cell is the lowest bit. */
export function packBits(flags: Uint8Array): Uint8Array<ArrayBuffer> {
  const packed = new Uint8Array(Math.ceil(flags.length / 8));
  flags.forEach((flag, cell) => {
    if (flag) packed[cell >> 3] |= 1 << (cell & 7);
  });
  return packed;
}

/** Twice the area of the triangle of three corners. */
function area(polygon: Polygon, a: number, b: number, c: number): number {
  const [ax, ay, bx, by, cx, cy] = [a, b, c].flatMap((at) => [polygon[2 * at], polygon[2 * at + 1]]);
  return Math.abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay));
}

/** Remove the least important corners (Visvalingam and Whyatt 1993), so that the region fits into a URL. */
export function simplified(polygon: Polygon, most = MOST_CORNERS): number[] {
  const corners = Array.from({ length: polygon.length / 2 }, (_, at) => at);
  while (corners.length > Math.max(3, most)) {
    let least = 0;
    let smallest = Infinity;
    corners.forEach((corner, at) => {
      const before = corners[(at + corners.length - 1) % corners.length];
      const after = corners[(at + 1) % corners.length];
      const size = area(polygon, before, corner, after);
      if (size < smallest) [least, smallest] = [at, size];
    });
    corners.splice(least, 1);
  }
  return corners.flatMap((corner) => [polygon[2 * corner], polygon[2 * corner + 1]]);
}

/** Rounded as in the URL, so that a reload finds the same cells. */
export function rounded(polygon: Polygon): number[] {
  return polygon.map((value) => Number(value.toPrecision(6)));
}

/** The cell nearest to a point, at most `reach` away; -1 if there is none. `hidden` may leave cells out. */
export function nearest(positions: Float32Array, point: readonly [number, number], reach: number, hidden: Uint8Array | null): number {
  let found = -1;
  let least = reach * reach;
  for (let cell = 0; cell < positions.length / 2; cell++) {
    const dx = positions[2 * cell] - point[0];
    const dy = positions[2 * cell + 1] - point[1];
    const distance = dx * dx + dy * dy;
    if (distance <= least && !hidden?.[cell]) [found, least] = [cell, distance];
  }
  return found;
}
