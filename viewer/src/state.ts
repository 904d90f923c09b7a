/** The part of the viewer that panels and inspector use. */
import type { Column, Dataset } from "./api";
import type { Camera } from "./camera";
import type { Lasso } from "./lasso";
import type { Scene } from "./scene";
import type { Store } from "./store";
import type { Layer, View } from "./view";

export interface ViewerState {
  readonly view: View;
  readonly scene: Scene;
  readonly lasso: Lasso;
  /** Data of the dataset on the screen. */
  readonly store: Store;
  readonly dataset: Dataset;
  /** The placed cells' tissue, in grey behind them. */
  readonly behind: Store | null;
  /** 1 for each cell that is hidden or belongs to another slice. */
  readonly hidden: Uint8Array;
  /** 1 for each cell that is not in the shown slice; null if all slices are shown. */
  readonly elsewhere: Uint8Array | null;
  /** 1 for each cell of the region. */
  readonly within: Uint8Array | null;
  /** The column that colours the cells. */
  readonly column: Column | null;
  /** Panels on the screen, in their order. */
  readonly shown: Layer[];
  open(view: View): Promise<void>;
  look(camera: Camera | null): void;
  /** Move the overlays of the panels to the camera position. */
  follow(): void;
}
