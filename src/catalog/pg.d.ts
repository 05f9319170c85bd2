/** The part of pg that the catalog uses; the package comes without types. */
declare module 'pg' {
  import type { EventEmitter } from 'node:events'

  namespace pg {
    type Value = null | number | bigint | string | Uint8Array

    interface Answer {
      /** The command's tag, e.g. `UPDATE`; a COMMIT that could not be answers `ROLLBACK`. */
      readonly command: string
      readonly rowCount: number | null
      readonly rows: Record<string, Value>[]
    }

    interface PoolClient extends EventEmitter {
      query(sql: string, values?: readonly Value[]): Promise<Answer>
      /** Once; a reason takes the connection out of the pool. */
      release(reason?: Error | boolean): void
    }

    interface PoolOptions {
      readonly host: string
      readonly port: number
      readonly database: string
      readonly user: string
      /** Asked at each connection that the server wants a password for. */
      readonly password: () => string
      readonly ssl: false | Readonly<Record<string, unknown>>
      readonly application_name: string
      /** Command-line options of the session's server process. */
      readonly options: string
      readonly max: number
      readonly idleTimeoutMillis: number
      /** Idle connections don't hold the process open. */
      readonly allowExitOnIdle: boolean
      /** Bounds the wait for a free connection and the making of one. */
      readonly connectionTimeoutMillis: number
      /** A query without an answer for so long ends its connection. */
      readonly query_timeout: number
      readonly keepAlive: boolean
      /** Sends every query at once; the server answers in their order. */
      readonly pipeline: boolean
      readonly types: { getTypeParser(oid: number, format: 'text' | 'binary'): (value: string) => unknown }
      readonly onConnect: (client: PoolClient) => Promise<void>
    }

    /** One connection, for tests. */
    class Client extends EventEmitter {
      constructor(options: Pick<PoolOptions, 'host' | 'port' | 'database' | 'types'> & { readonly user: string })
      connect(): Promise<void>
      query(sql: string, values?: readonly Value[]): Promise<Answer>
      end(): Promise<void>
    }

    class Pool extends EventEmitter {
      constructor(options: PoolOptions)
      readonly waitingCount: number
      connect(): Promise<PoolClient>
      end(): Promise<void>
    }
  }

  export = pg
}
