/**
 * Columns of values as PostgreSQL arrays, for `unnest`. Written by hand since they are most of what a commit costs in
 * node, and their parsing a fifth of what it costs in the server: ids as text (`{a,b}`), everything else in the binary
 * format, which needs no quoting here and no parsing there.
 */

/** Ids: values whose text needs no quotes. */
export const plainArray = (values: ReadonlyArray<string | number>): string => `{${values.join(",")}}`

const headerBytes = 20
const oids = { text: 25, smallint: 21, integer: 23, bigint: 20, float8: 701 } as const
const sizes = { smallint: 2, integer: 4, bigint: 8, float8: 8 } as const
export type NumberType = keyof typeof sizes

const writeHeader = (view: DataView, hasNull: boolean, oid: number, length: number): void => {
  view.setInt32(0, 1) // dimensions
  view.setInt32(4, hasNull ? 1 : 0)
  view.setInt32(8, oid)
  view.setInt32(12, length)
  view.setInt32(16, 1) // index of the first
}

const viewOf = (buffer: Buffer): DataView => new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)

/** node-postgres sends a Buffer in the binary format. Integers must be whole and in the range of their type. */
export const numberArray = (type: NumberType, values: ReadonlyArray<number | null>): Buffer => {
  const size = sizes[type]
  let bytes = headerBytes
  for (const value of values) bytes += value === null ? 4 : 4 + size
  const buffer = Buffer.allocUnsafe(bytes)
  const view = viewOf(buffer)
  writeHeader(view, bytes < headerBytes + values.length * (4 + size), oids[type], values.length)
  let at = headerBytes
  for (const value of values) {
    if (value === null) {
      view.setInt32(at, -1)
      at += 4
      continue
    }
    view.setInt32(at, size)
    at += 4
    if (type === "float8") view.setFloat64(at, value)
    else if (type === "integer") view.setInt32(at, value)
    else if (type === "smallint") view.setInt16(at, value)
    else {
      // Without a BigInt: two halves, the upper one rounded towards minus infinity.
      view.setInt32(at, Math.floor(value / 2 ** 32))
      view.setUint32(at + 4, value >>> 0)
    }
    at += size
  }
  return buffer
}

/** As `numberArray`. */
export const textArray = (values: ReadonlyArray<string | null>): Buffer => {
  let bytes = headerBytes
  let hasNull = false
  for (const value of values) {
    bytes += 4
    if (value === null) hasNull = true
    else bytes += Buffer.byteLength(value)
  }
  const buffer = Buffer.allocUnsafe(bytes)
  const view = viewOf(buffer)
  writeHeader(view, hasNull, oids.text, values.length)
  let at = headerBytes
  for (const value of values) {
    const start = at + 4
    if (value === null) {
      view.setInt32(at, -1)
      at = start
      continue
    }
    at = start + buffer.write(value, start)
    view.setInt32(start - 4, at - start)
  }
  return buffer
}
