/** Requests to the server, with its answers and errors. */

export interface CategoryColumn {
  name: string;
  kind: "category";
  categories: string[];
  colors: string[];
}
export interface NumberColumn {
  name: string;
  kind: "number";
  low: number;
  high: number;
}
export type Column = CategoryColumn | NumberColumn;
export type ValueLayer = "measured" | "imputed" | "uncertainty";

export type Scale = "log" | "counts";

export interface Dataset {
  id: number;
  title: string;
  kind: "imputed" | "placed" | "spots";
  cells: number;
  genes: number;
  layers: ValueLayer[];
  /** What its values are: log-normalised, or counts. */
  scale: Scale;
  interval: number | null;
  columns: Column[];
  bounds: [number, number, number, number];
  unit: string | null;
  slices: string | null;
  cell?: boolean;
}
export interface Session {
  cellweft: string;
  datasets: Dataset[];
}
export interface Genes {
  names: string[];
  measured: boolean[];
  in_tissue: boolean[];
  reliability: (number | null)[];
}
export interface Values {
  values: Float32Array;
  low: number;
  high: number;
}
export interface ComparedGene {
  name: string;
  inside: number;
  outside: number;
  difference: number;
  reliability: number | null;
  measured: boolean;
  score: number;
}
export interface Comparison {
  inside: number;
  outside: number;
  layer: string;
  genes: ComparedGene[];
}
export interface CellCard {
  name: string;
  columns: Record<string, string | number | boolean | null>;
}

/** An error in the form that cellweft uses: what was expected, what was found, where, and the next step. */
export class ServerError extends Error {
  constructor(readonly where: string, readonly expected: string, readonly got: string, readonly fix: string) {
    super(`${where}: expected ${expected}, got ${got}. ${fix}`);
  }
}

async function failure(answer: Response): Promise<ServerError> {
  try {
    const { error } = (await answer.json()) as { error: { where: string; expected: string; got: string; fix: string } };
    return new ServerError(error.where, error.expected, error.got, error.fix);
  } catch {
    return new ServerError("the server", "a response", `status ${answer.status}`, "Restart cellweft view and reload this page.");
  }
}

async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ServerError("the server", "a response", "none", "Check that cellweft view is still running, and reload this page.");
  }
  if (!answer.ok) throw await failure(answer);
  return answer;
}

/** Bytes of little-endian numbers; every machine that runs a browser today is little-endian. */
async function bytes(answer: Response, expected: number, where: string): Promise<ArrayBuffer> {
  const buffer = await answer.arrayBuffer();
  if (buffer.byteLength !== expected) {
    throw new ServerError(where, `${expected} bytes`, `${buffer.byteLength}`, "The file has changed. Restart cellweft view.");
  }
  return buffer;
}

const of = (dataset: Dataset, what: string): string => `api/datasets/${dataset.id}/${what}`;

export async function getSession(): Promise<Session> {
  return (await ask("api/session")).json() as Promise<Session>;
}

export async function getPositions(dataset: Dataset): Promise<Float32Array> {
  const answer = await ask(of(dataset, "positions"));
  return new Float32Array(await bytes(answer, 8 * dataset.cells, `positions of ${dataset.title}`));
}

export async function getGenes(dataset: Dataset): Promise<Genes> {
  return (await ask(of(dataset, "genes"))).json() as Promise<Genes>;
}

export async function getValues(dataset: Dataset, gene: string, layer: ValueLayer): Promise<Values> {
  const answer = await ask(of(dataset, `values?${new URLSearchParams({ gene, layer })}`));
  const values = new Float32Array(await bytes(answer, 4 * dataset.cells, `${gene} of ${dataset.title}`));
  const limit = (name: string): number => Number(answer.headers.get(name) ?? NaN);
  return { values, low: limit("X-Cellweft-Low"), high: limit("X-Cellweft-High") };
}

export async function getColumn(dataset: Dataset, column: Column): Promise<Float32Array | Uint16Array> {
  const answer = await ask(of(dataset, `column?${new URLSearchParams({ name: column.name })}`));
  const where = `${column.name} of ${dataset.title}`;
  return column.kind === "category"
    ? new Uint16Array(await bytes(answer, 2 * dataset.cells, where))
    : new Float32Array(await bytes(answer, 4 * dataset.cells, where));
}

export async function getCell(dataset: Dataset, index: number): Promise<CellCard> {
  return (await ask(of(dataset, `cell?index=${index}`))).json() as Promise<CellCard>;
}

export async function compare(dataset: Dataset, bits: Uint8Array<ArrayBuffer>): Promise<Comparison> {
  const options = { method: "POST", body: bits, headers: { "Content-Type": "application/octet-stream" } };
  return (await ask(of(dataset, "compare"), options)).json() as Promise<Comparison>;
}
