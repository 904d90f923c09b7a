/** The inspected cell: the one under the pointer, or the one that was clicked. */
import { getCell } from "./api";
import { hideCard, showCard, type Row } from "./card";
import { say } from "./dom";
import { showError } from "./notice";
import { nearest } from "./region";
import type { ViewerState } from "./state";
import { figure } from "./text";

const REACH = 10; // largest distance from the pointer to a cell, in pixels

export class Inspector {
  private hovered = -1;
  private kept = -1;
  private waiting = false;

  constructor(private readonly viewer: ViewerState) {}

  /** The position of the inspected cell. */
  get place(): [number, number] | null {
    const cell = this.kept >= 0 ? this.kept : this.hovered;
    const { positions } = this.viewer.store;
    return cell < 0 ? null : [positions[2 * cell], positions[2 * cell + 1]];
  }

  hover(point: [number, number] | null, event: PointerEvent): void {
    if (this.kept >= 0 || this.waiting || this.viewer.lasso.on) return;
    if (!point) return this.look(-1, event);
    this.waiting = true; // at most one search per frame
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.kept < 0) this.look(this.find(point, REACH), event);
    });
  }

  click(point: [number, number], at: { x: number; y: number }): void {
    const cell = this.find(point, REACH);
    if (cell < 0) this.forget();
    else void this.keep(cell, at);
  }

  /** Click the cell in the middle of the view, as the keyboard does; its card appears at `point`. */
  middle(point: () => { x: number; y: number }): void {
    const { camera } = this.viewer.scene;
    const cell = this.find([camera.x, camera.y], Infinity);
    if (cell >= 0) void this.keep(cell, point());
  }

  /** The cells have moved, so the cell under the pointer is no longer valid. */
  leave(): void {
    if (this.kept >= 0 || this.hovered < 0) return;
    this.hovered = -1;
    hideCard();
  }

  /** Close the card; returns whether there was one. */
  forget(): boolean {
    const was = this.kept >= 0;
    this.kept = this.hovered = -1;
    hideCard();
    if (this.viewer.store) this.viewer.follow();
    return was;
  }

  private find(point: readonly [number, number], pixels: number): number {
    const { store, hidden, scene } = this.viewer;
    return nearest(store.positions, point, pixels / scene.lens.scale, hidden);
  }

  private look(cell: number, at: { x: number; y: number }): void {
    this.hovered = cell;
    if (cell < 0) hideCard();
    else showCard(`Cell ${cell + 1}`, this.rows(cell), at, false);
    this.viewer.follow();
  }

  private async keep(cell: number, at: { x: number; y: number }): Promise<void> {
    this.kept = cell;
    const { dataset } = this.viewer;
    showCard(`Cell ${cell + 1}`, this.rows(cell), at, true);
    this.viewer.follow();
    const said = (title: string, rows: Row[]): void =>
      say(`${title}: ${rows.map(([name, value]) => `${name} ${typeof value === "number" ? figure(value) : (value ?? "none")}`).join(", ")}`);
    if (!dataset.cell) return said(`Cell ${cell + 1}`, this.rows(cell));
    try {
      const { name, columns } = await getCell(dataset, cell);
      if (this.kept !== cell || this.viewer.dataset !== dataset) return;
      const genes = this.rows(cell).filter(([label]) => !(label in columns));
      const rows = [...genes, ...Object.entries(columns)];
      showCard(name, rows, at, true);
      said(name, rows);
    } catch (error) {
      showError(error);
    }
  }

  /** The values of a cell in the panels. */
  private rows(cell: number): Row[] {
    const { store, shown, view, column } = this.viewer;
    return shown.map((layer): Row => {
      if (layer !== "column") return [`${view.gene} ${layer}`, store.known(cell, view.gene ?? "", layer) ?? null];
      const value = column ? store.known(cell, column.name) : undefined;
      const text = column?.kind === "category" ? (column.categories[value ?? 65535] ?? null) : (value ?? null);
      return [column?.name ?? "", text];
    });
  }
}
