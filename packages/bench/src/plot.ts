/**
 * Plots as SVG, from nothing but text: bars of one figure, a line of one series. Small enough to be read in a review, and
 * in colours that can be told apart on light and on dark pages.
 */

const width = 720
const left = 170
const right = 90
const barHeight = 22
const barGap = 10
const top = 56
const bottom = 40
const ink = "#57606a"
const oursColour = "#1f6feb"
const theirsColour = "#8b949e"
const font = `font-family="system-ui, sans-serif" fill="${ink}"`

export interface Bar {
  readonly label: string
  readonly value: number
  readonly min: number
  readonly max: number
  readonly isOurs: boolean
}

export interface Point {
  readonly x: number
  readonly value: number
  readonly min: number
  readonly max: number
}

const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;")

/** Two decimals are a hundredth of a pixel. */
const px = (value: number): string => String(Math.round(value * 100) / 100)

const text = (x: number, y: number, content: string, more = ""): string =>
  `<text x="${px(x)}" y="${px(y)}" font-size="13" ${font} ${more}>${escaped(content)}</text>`

const frame = (height: number, title: string, unit: string, inner: ReadonlyArray<string>): string =>
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${
      escaped(title)
    }">`,
    `<text x="16" y="24" font-size="16" font-weight="600" ${font}>${escaped(title)}</text>`,
    text(16, 42, unit),
    ...inner,
    "</svg>",
    ""
  ].join("\n")

const line = (x1: number, y1: number, x2: number, y2: number, colour: string): string =>
  `<line x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}" stroke="${colour}"/>`

/** The best first; the whisker is the smallest and the largest measurement. */
export const bars = (title: string, unit: string, given: ReadonlyArray<Bar>): string => {
  const most = Math.max(...given.map(({ max }) => max), Number.MIN_VALUE)
  const at = (value: number) => left + (width - left - right) * value / most
  const inner = given.flatMap(({ isOurs, label, max, min, value }, n) => {
    const y = top + n * (barHeight + barGap)
    const middle = y + barHeight / 2
    return [
      text(left - 10, middle + 4, label, "text-anchor=\"end\""),
      `<rect x="${left}" y="${y}" width="${px(Math.max(1, at(value) - left))}" height="${barHeight}" rx="3" fill="${
        isOurs ? oursColour : theirsColour
      }"/>`,
      line(at(min), middle, at(max), middle, ink),
      text(at(max) + 8, middle + 4, short(value))
    ]
  })
  return frame(top + given.length * (barHeight + barGap) + bottom / 2, title, unit, inner)
}

const plotHeight = 220

/** x is logarithmic where it spans more than a factor of twenty. y begins at 0. */
export const lines = (title: string, unit: string, xLabel: string, given: ReadonlyArray<Point>): string => {
  const points = [...given].sort((a, b) => a.x - b.x)
  const most = Math.max(...points.map(({ max }) => max), Number.MIN_VALUE)
  const isLogarithmic = points.length > 1 && points[0]!.x > 0 && points.at(-1)!.x / points[0]!.x > 20
  const scaled = (x: number) => isLogarithmic ? Math.log(x) : x
  const [first, last] = [scaled(points[0]?.x ?? 0), scaled(points.at(-1)?.x ?? 1)]
  const from = 90
  const x = (point: Point) => from + (width - from - right) * (scaled(point.x) - first) / (last - first || 1)
  const y = (value: number) => top + plotHeight * (1 - value / most)
  const inner = [
    ...[0, 0.5, 1].flatMap((share) => [
      line(from - 6, y(most * share), width - right + 6, y(most * share), "#d0d7de"),
      text(from - 12, y(most * share) + 4, short(most * share), "text-anchor=\"end\"")
    ]),
    `<polyline fill="none" stroke="${oursColour}" stroke-width="2" points="${
      points.map((point) => `${px(x(point))},${px(y(point.value))}`).join(" ")
    }"/>`,
    ...points.flatMap((point) => [
      line(x(point), y(point.min), x(point), y(point.max), ink),
      `<circle cx="${px(x(point))}" cy="${px(y(point.value))}" r="4" fill="${oursColour}"/>`,
      text(x(point), top + plotHeight + 22, short(point.x), "text-anchor=\"middle\"")
    ]),
    text((from + width - right) / 2, top + plotHeight + 42, xLabel, "text-anchor=\"middle\"")
  ]
  return frame(top + plotHeight + bottom + 14, title, unit, inner)
}

/** 1234567 as 1.23M, 12345 as 12.3k. */
export const short = (value: number): string => {
  const digits = (of: number) => String(Number(of.toPrecision(3)))
  if (value >= 999_500) return `${digits(value / 1_000_000)}M`
  return value >= 9_995 ? `${digits(value / 1_000)}k` : digits(value)
}
