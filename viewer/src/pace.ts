/** The number of cells to draw per frame, adapted to the duration of frames. Pure. */

export const AIM = 24; // milliseconds per frame while moving: 30 frames per second with some reserve
const LEAST = 12_000; // fewer show too little, and save little: the rest of a frame takes the same time
const MOST = 20_000_000;

export class Pace {
  budget = 60_000;
  /** Time of the last moving frame. */
  last = 0;
  /** Times of the frames of the last movement, in milliseconds. */
  times: number[] = [];

  /** Start of a movement: earlier times are not comparable. */
  begin(): void {
    this.times = [];
  }

  /**
   * Record a moving frame with `drawn` cells: the time since the previous frame, and since the frame was
   * requested. If the user rarely moves the pointer, frames are rare, and this does not reduce the number of cells.
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
