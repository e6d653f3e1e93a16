/**
 * One connection of the journal, for longer than any session of it lives.
 *
 * The danger is a statement whose answer never came: it may still be on its way, or at work. Sent again over another
 * connection and followed by later changes of the same run, the first copy could then arrive last, and take back what
 * came after it. So before anything else is sent, the session that was lost is ended: the new one terminates its
 * backend and waits until it is gone. What was in its socket is gone with it, and what it had committed is visible.
 */
import type Pg from "pg"
import { NotConnected, verdictOf } from "./pgErrors.js"

interface Session {
  readonly pid: number
  /** Process ids are used again; not within one start time. */
  readonly startedAt: string
}

/** The server waits that long for a lost session to end, per try. */
const endSessionMs = 2_000

export class JournalConnection {
  private client: Pg.PoolClient | undefined
  private session: Session | undefined
  private lost: Session | undefined
  private busy = false
  private connecting: Promise<Pg.PoolClient> | undefined
  private isClosed = false

  constructor(private readonly pool: Pg.Pool) {}

  /** Dials ahead of the first statement, which a node that has just joined would have callers wait for. */
  warm(): void {
    this.connected().catch(() => undefined)
  }

  /** One statement at a time. After an error that is no answer of the server the connection is made anew. */
  async query<Row extends object>(statement: Pg.QueryConfig): Promise<Array<Row>> {
    this.busy = true
    try {
      const client = this.client ?? (await this.connected())
      return (await client.query<Row>(statement)).rows
    } catch (error) {
      if (this.client !== undefined && verdictOf(error) === "lost") {
        this.lost = this.session
        this.drop()
      }
      throw error
    } finally {
      this.busy = false
    }
  }

  close(): void {
    this.isClosed = true
    const client = this.client
    this.client = undefined
    client?.release(this.busy)
  }

  private connected(): Promise<Pg.PoolClient> {
    return this.connecting ??= this.connect().finally(() => void (this.connecting = undefined))
  }

  private async connect(): Promise<Pg.PoolClient> {
    const client = await this.pool.connect().catch(notConnected)
    // Also keeps the error of a broken connection from ending the process.
    client.on("error", () => {
      if (!this.busy && this.client === client) this.drop()
    })
    try {
      if (this.lost !== undefined) await endSession(client, this.lost)
      this.lost = undefined
      const own = await client.query<Session>(
        `select pid, backend_start::text as "startedAt" from pg_stat_activity where pid = pg_backend_pid()`
      )
      this.session = own.rows[0]
    } catch (error) {
      client.release(true)
      return notConnected(error)
    }
    if (this.isClosed) {
      client.release(true)
      return notConnected(new Error("the journal was closed"))
    }
    this.client = client
    return client
  }

  private drop(): void {
    const client = this.client
    this.client = undefined
    client?.release(true)
  }
}

const notConnected = (error: unknown): never => {
  throw new NotConnected(error)
}

const endSession = async (client: Pg.PoolClient, { pid, startedAt }: Session): Promise<void> => {
  const left = await client.query<{ readonly gone: boolean }>(
    `select pg_terminate_backend(pid, ${endSessionMs}) as gone from pg_stat_activity
     where pid = $1 and backend_start = $2::timestamptz`,
    [pid, startedAt]
  )
  if (left.rows.some((row) => !row.gone)) throw new Error("the session of a lost commit has not ended yet")
}
