/**
 * Draws cells as WebGL points on one canvas.
 *
 * Values are uploaded unchanged, and the shader converts them to colours: another gene is one upload of four
 * bytes per cell. Points are used, not instanced squares: software renderers draw them many times faster.
 */
import * as twgl from "twgl.js";
import type { Run } from "./cloud";
import { MISSING } from "./cloud";
import type { Colour } from "./colours";

const VERTEX = `#version 300 es
precision highp float;
in vec2 place;
in float value;
in float flag;
uniform vec2 centre;
uniform vec2 scale;
uniform float size;
uniform vec2 limits;
uniform bool coded;
uniform bool plain;
uniform bool dimming;
uniform sampler2D colours;
uniform vec3 missing;
uniform vec3 ground;
flat out vec3 colour;

vec3 colourOf(float held) {
  if (plain || held < ${MISSING / 10}) return missing;
  int last = textureSize(colours, 0).x - 1;
  int step = coded ? int(held) : int(clamp((held - limits.x) / (limits.y - limits.x), 0.0, 1.0) * float(last) + 0.5);
  return texelFetch(colours, ivec2(min(step, last), 0), 0).rgb;
}

void main() {
  if (flag < 0.5) {  // hidden: put where nothing is seen
    gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
    gl_PointSize = 1.0;
    return;
  }
  gl_Position = vec4((place - centre) * scale, 0.0, 1.0);
  gl_PointSize = size;
  colour = colourOf(value);
  if (dimming && flag < 1.5) colour = mix(colour, ground, 0.82);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
flat in vec3 colour;
uniform float size;
out vec4 pixel;

void main() {
  float seen = 1.0;
  if (size > 3.0) {  // smaller ones are squares: nobody sees the corners
    seen = clamp((0.5 - distance(gl_PointCoord, vec2(0.5))) * size + 0.5, 0.0, 1.0);
    if (seen == 0.0) discard;
  }
  pixel = vec4(colour * seen, seen);
}`;

const SMOOTH_FROM = 3; // size in pixels above which points are round with soft edges

/** A cloud of cells in the WebGL context of one canvas. */
export interface Held {
  vertices: WebGLVertexArrayObject;
  buffers: { place: WebGLBuffer; value: WebGLBuffer; flag: WebGLBuffer };
  colours: WebGLTexture;
}

export interface Look {
  centre: [number, number];
  scale: [number, number];
  size: number;
  limits: [number, number];
  coded: boolean;
  plain: boolean;
  dimming: boolean;
  missing: number[];
  ground: number[];
}

export function asUnit(colour: Colour): number[] {
  return colour.map((part) => part / 255);
}

export class Painter {
  private readonly gl: WebGL2RenderingContext;
  private readonly program: twgl.ProgramInfo;
  private readonly rest: { frame: WebGLFramebuffer; picture: WebGLRenderbuffer };

  /** Raises an Error where the browser has no WebGL 2. */
  constructor(private readonly canvas: HTMLCanvasElement) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, depth: false, stencil: false });
    if (!gl) throw new Error("this browser has no WebGL 2");
    this.gl = gl;
    this.program = twgl.createProgramInfo(gl, [VERTEX, FRAGMENT]);
    this.rest = { frame: gl.createFramebuffer(), picture: gl.createRenderbuffer() };
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  resize(width: number, height: number): void {
    this.canvas.width = width;
    this.canvas.height = height;
    const { gl, rest } = this;
    gl.bindRenderbuffer(gl.RENDERBUFFER, rest.picture);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.RGBA8, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, rest.frame);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, rest.picture);
  }

  hold(places: Float32Array): Held {
    const { gl } = this;
    const cells = places.length / 2;
    const place = twgl.createBufferFromTypedArray(gl, places);
    const value = twgl.createBufferFromTypedArray(gl, new Float32Array(cells));
    const flag = twgl.createBufferFromTypedArray(gl, new Uint8Array(cells).fill(1));
    const vertices = twgl.createVertexArrayInfo(gl, this.program, {
      numElements: cells,
      attribs: {
        place: { buffer: place, numComponents: 2 },
        value: { buffer: value, numComponents: 1 },
        flag: { buffer: flag, numComponents: 1, type: gl.UNSIGNED_BYTE, normalize: false },
      },
    }).vertexArrayObject as WebGLVertexArrayObject;
    const colours = twgl.createTexture(gl, { width: 1, height: 1, src: new Uint8Array(4), minMag: gl.NEAREST });
    return { vertices, buffers: { place, value, flag }, colours };
  }

  release(held: Held): void {
    this.gl.deleteVertexArray(held.vertices);
    for (const buffer of Object.values(held.buffers)) this.gl.deleteBuffer(buffer);
    this.gl.deleteTexture(held.colours);
  }

  setValues(held: Held, ordered: Float32Array): void {
    this.upload(held.buffers.value, ordered);
  }

  /** 0: hidden; 1: visible; 2: visible and in the region. */
  setFlags(held: Held, ordered: Uint8Array): void {
    this.upload(held.buffers.flag, ordered);
  }

  setColours(held: Held, rgba: Uint8Array): void {
    const options = { width: rgba.length / 4, height: 1, minMag: this.gl.NEAREST, auto: false, src: rgba };
    twgl.setTextureFromArray(this.gl, held.colours, rgba, options);
  }

  /** Start drawing on the screen, or on the off-screen picture that `show` displays when it is complete. */
  begin(target: "screen" | "rest", ground: Colour | null): void {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target === "rest" ? this.rest.frame : null);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.useProgram(this.program.program);
    if (ground) {
      const [red, green, blue] = asUnit(ground);
      gl.clearColor(red, green, blue, 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
    }
  }

  draw(held: Held, runs: readonly Run[], look: Look): void {
    const { gl } = this;
    if (look.size > SMOOTH_FROM) gl.enable(gl.BLEND);
    else gl.disable(gl.BLEND);
    gl.bindVertexArray(held.vertices);
    twgl.setUniforms(this.program, { ...look, colours: held.colours });
    for (const run of runs) gl.drawArrays(gl.POINTS, run.first, run.count);
    gl.bindVertexArray(null);
  }

  show(): void {
    const { gl, canvas } = this;
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.rest.frame);
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null);
    const corners = [0, 0, canvas.width, canvas.height] as const;
    gl.blitFramebuffer(...corners, ...corners, gl.COLOR_BUFFER_BIT, gl.NEAREST);
  }

  /** Release the context; browsers keep only about sixteen of them. */
  close(): void {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  private upload(buffer: WebGLBuffer, data: Float32Array | Uint8Array): void {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
  }
}
