import { describe, expect, it } from "vitest";
import { AIM, Pace } from "../src/pace";

/** A machine that draws so many cells a millisecond, no faster than a screen of 60 Hz. */
function moved(pace: Pace, cellsPerMillisecond: number, cells: number, frames = 60): number[] {
  pace.begin();
  for (let frame = 0; frame < frames; frame++) {
    const drawn = Math.min(cells, pace.budget);
    const time = Math.max(16.7, drawn / cellsPerMillisecond);
    pace.note(time, time, drawn);
  }
  return pace.times.slice(-20);
}

describe("the pace", () => {
  it("keeps slow machines above 30 frames a second", () => {
    expect(Math.max(...moved(new Pace(), 500, 1e6))).toBeLessThan(1000 / 30);
  });

  it("draws more on fast machines, up to all", () => {
    const pace = new Pace();
    moved(pace, 1e6, 2e6, 80);
    expect(pace.budget).toBeGreaterThan(2e6);
  });

  it("does not grow by frames that had little to draw", () => {
    const pace = new Pace();
    const before = pace.budget;
    moved(pace, 500, 1000);
    expect(pace.budget).toBe(before);
  });

  it("is not slowed by a hand that moves seldom", () => {
    const pace = new Pace();
    const before = pace.budget;
    for (let frame = 0; frame < 20; frame++) pace.note(100, 20, before);
    expect(pace.budget).toBe(before);
    expect(pace.times[0]).toBe(100);
  });

  it("forgets the times of the last movement", () => {
    const pace = new Pace();
    pace.note(AIM, AIM, 1);
    pace.begin();
    expect(pace.times).toEqual([]);
  });
});
