import { describe, expect, it } from "vitest";
import { gradient, mapBytes, mapStart, otherMap, paletteBytes, parseColour, seenOn } from "../src/colours";

describe("colours", () => {
  it("are viridis and cividis, at their known ends", () => {
    expect([...mapBytes("viridis").slice(0, 4)]).toEqual([68, 1, 84, 255]);
    expect([...mapBytes("viridis").slice(-4)]).toEqual([253, 231, 37, 255]);
    const cividis = mapBytes("cividis");
    expect(cividis[2]).toBeGreaterThan(60); // begins blue
    expect(cividis[4 * 255]).toBeGreaterThan(230); // ends yellow
  });

  it("rise in lightness all the way, so that order can be seen without hue", () => {
    for (const name of ["viridis", "cividis"] as const) {
      const bytes = mapBytes(name);
      const light = (step: number): number => 0.2126 * bytes[4 * step] + 0.7152 * bytes[4 * step + 1] + 0.0722 * bytes[4 * step + 2];
      for (let step = 16; step < 256; step += 16) expect(light(step)).toBeGreaterThan(light(step - 16));
    }
  });

  it("start later on dark ground, where their first colours vanish, in picture and legend alike", () => {
    expect(mapStart([243, 242, 238])).toBe(0);
    const start = mapStart([14, 17, 18]);
    for (const name of ["viridis", "cividis"] as const) {
      const bytes = mapBytes(name, start);
      expect(Math.max(bytes[0] - 14, bytes[1] - 17, bytes[2] - 18)).toBeGreaterThan(80);
      expect(gradient(name, start)).not.toBe(gradient(name));
      expect([...bytes.slice(-4)]).toEqual([...mapBytes(name).slice(-4)]);
    }
  });

  it("are read from the server's and the browser's forms", () => {
    expect(parseColour("#E69f00")).toEqual([230, 159, 0]);
    expect(parseColour("rgb(1, 2, 3)")).toEqual([1, 2, 3]);
    expect(parseColour("nonsense")).toEqual([128, 128, 128]);
    expect([...paletteBytes(["#010203", "#ffffff"])]).toEqual([1, 2, 3, 255, 255, 255, 255, 255]);
  });

  it("stand in the legend as a gradient, and differ for uncertainty", () => {
    expect(gradient("viridis")).toMatch(/^linear-gradient\(to right, /);
    expect(otherMap(otherMap("viridis"))).toBe("viridis");
  });
});

describe("a category's colour", () => {
  it("never vanishes on the ground", () => {
    expect(seenOn([14, 17, 18], "#000000")).toBe("#c4c9ca");
    expect(seenOn([243, 242, 238], "#ffffff")).toBe("#5c6366");
    expect(seenOn([243, 242, 238], "#000000")).toBe("#000000");
    expect(seenOn([243, 242, 238], "#F0E442")).toBe("#F0E442");
  });
});
