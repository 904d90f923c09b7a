/** How many cells a frame draws, learned from the time that frames take. Pure. */

export const AIM = 24; // milliseconds a frame while moving: 30 frames a second with something to spare
const LEAST = 12_000; // fewer are no picture, and save little: the rest of a frame costs the same
const MOST = 20_000_000;

export class Pace {
  budget = 60_000;
  /** Time of the last frame that moved. */
  last = 0;
  /** Times of the frames of the last movement, in milliseconds. */
  times: number[] = [];

  /** Start of a movement: earlier times say nothing about it. */
  begin(): void {
    this.times = [];
  }

  /**
   * Note a moving frame that drew `drawn` cells: the time since the frame before, and the time since it was asked
   * for. A hand that moves seldom makes frames seldom, which is no reason to draw less.
   */
  note(between: number, milliseconds: number, drawn: number): void {
    this.times.push(between);
    this.last = milliseconds;
    if (milliseconds > 1.25 * AIM) {
      this.budget = Math.max(LEAST, Math.min(drawn, this.budget) * Math.max(0.5, AIM / milliseconds));
    } else if (milliseconds < 0.8 * AIM && drawn > 0.8 * this.budget) {
      this.budget = Math.min(MOST, this.budget * 1.12);
    }
  }
}
