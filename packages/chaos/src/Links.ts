/**
 * The network of a cluster under fault: which process talks to which through a proxy. Each pair of processes has a proxy of
 * its own, so that what is cut between two of them is not cut for a third. Only links of the kinds a scenario needs have
 * one: a proxy costs time on a machine that is busy already.
 */
import { Effect, type Scope } from "effect"
import * as TcpProxy from "./TcpProxy.js"

/** To the database, to the data plane of a node, to the port of a node for the cluster library. */
export type LinkKind = "postgres" | "data" | "runner"

export interface Link {
  readonly from: string
  /** Name of the node, or `postgres`. */
  readonly to: string
  readonly kind: LinkKind
  readonly proxy: TcpProxy.TcpProxy
}

export interface Destination {
  readonly name: string
  readonly kind: LinkKind
  readonly host: string
  readonly port: number
}

export interface Links {
  readonly find: (which: Partial<Pick<Link, "from" | "to" | "kind">>) => ReadonlyArray<Link>
  /** Where connections of a process are to go, by the address they are meant for. */
  readonly routesOf: (from: string) => Readonly<Record<string, number>>
  /** As if there were no proxies. */
  readonly heal: Effect.Effect<void>
}

/** The harness itself, where the clients are. */
export const clientName = "client"

export const make = (options: {
  /** All processes that will be started, nodes first. */
  readonly nodes: ReadonlyArray<string>
  readonly workers: ReadonlyArray<string>
  readonly destinations: ReadonlyArray<Destination>
  readonly kinds: ReadonlyArray<LinkKind>
  readonly random: () => number
}): Effect.Effect<Links, TcpProxy.ProxyFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const links: Array<Link & { readonly address: string }> = []
    const sources = (kind: LinkKind) =>
      kind === "data" ? [...options.nodes, ...options.workers, clientName] : options.nodes
    for (const { host, kind, name, port } of options.destinations) {
      if (!options.kinds.includes(kind)) continue
      for (const from of sources(kind)) {
        if (from === name) continue
        const proxy = yield* TcpProxy.listen({ host, port, random: options.random })
        links.push({ from, to: name, kind, proxy, address: `${host}:${port}` })
      }
    }
    return {
      find: (which) =>
        links.filter((link) =>
          (which.from ?? link.from) === link.from && (which.to ?? link.to) === link.to
          && (which.kind ?? link.kind) === link.kind
        ),
      routesOf: (from) =>
        Object.fromEntries(
          links.filter((link) => link.from === from).map(({ address, proxy }) => [address, proxy.port])
        ),
      heal: Effect.sync(() => {
        for (const { proxy } of links) proxy.set({ _tag: "pass" })
      })
    }
  })
