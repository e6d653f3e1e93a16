/**
 * Columns of values as PostgreSQL arrays, for `unnest`. Written by hand since they are most of what a commit costs in
 * node: numbers and ids as text (`{1,2}`), texts in the binary format, which needs no quoting here and no parsing there.
 */

/** Numbers and ids: values whose text needs no quotes. */
export const plainArray = (values: ReadonlyArray<string | number | null>): string => {
  let text = "{"
  for (let at = 0; at < values.length; at++) {
    if (at > 0) text += ","
    const value = values[at]!
    text += value === null ? "NULL" : value
  }
  return text + "}"
}

const textOid = 25
const headerBytes = 20

/** node-postgres sends a Buffer in the binary format. */
export const textArray = (values: ReadonlyArray<string | null>): Buffer => {
  let bytes = headerBytes
  let hasNull = false
  for (const value of values) {
    bytes += 4
    if (value === null) hasNull = true
    else bytes += Buffer.byteLength(value)
  }
  const buffer = Buffer.allocUnsafe(bytes)
  buffer.writeInt32BE(1, 0) // dimensions
  buffer.writeInt32BE(hasNull ? 1 : 0, 4)
  buffer.writeInt32BE(textOid, 8)
  buffer.writeInt32BE(values.length, 12)
  buffer.writeInt32BE(1, 16) // index of the first
  let at = headerBytes
  for (const value of values) {
    const start = at + 4
    if (value === null) {
      buffer.writeInt32BE(-1, at)
      at = start
      continue
    }
    at = start + buffer.write(value, start)
    buffer.writeInt32BE(at - start, start - 4)
  }
  return buffer
}
