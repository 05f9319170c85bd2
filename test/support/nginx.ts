/** An NGINX of Debian's package on loopback, with a folder of its own; in the foreground, under the test's own user. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type CommandResult, run, runOk } from './command.ts'

const unpacked = fileURLToPath(new URL('../../node_modules/.cache/nginx/nginx', import.meta.url))
/** What deploy/setup.sh looks for, in its order. */
const program = ['/usr/sbin/nginx', unpacked].find((place) => existsSync(place)) ?? 'nginx'

export interface NginxOptions {
  /** What stands inside `http { }`. */
  readonly http: string
  readonly env?: Readonly<Record<string, string>>
  readonly workers?: number
  /** Whom workers become, as root; default: they stay root. */
  readonly user?: string
  /** Lines outside of `http { }`. */
  readonly main?: string
}

export interface Nginx extends AsyncDisposable {
  readonly folder: string
  readonly pid: number
  errorLog(): string
  /** Until the new workers serve and the old ones have ended. */
  reload(): Promise<void>
}

export interface NginxDaemon extends AsyncDisposable {
  readonly folder: string
  /** Of the process that the pid file names. */
  masterPid(): number
  errorLog(): string
}

/** A port that nothing listens on just now. */
export async function findFreePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { readonly port: number }
  server.close()
  await once(server, 'close')
  return port
}

function writeConfiguration(
  folder: string,
  { http, workers = 1, user = 'root', main = '' }: NginxOptions,
  daemon = 'off',
): string {
  const place = path.join(folder, 'nginx.conf')
  // else its workers become nobody, who may not enter the folders of tests
  const asRoot = process.getuid?.() === 0 ? `user ${user};\n` : ''
  const kept = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(
    place,
    `${asRoot}worker_processes ${workers};
daemon ${daemon};
${main}
pid ${folder}/nginx.pid;
error_log ${folder}/error.log notice;
events { worker_connections 512; }
http {
  access_log off;
  ${kept.map((name) => `${name}_temp_path ${folder}/${name};`).join('\n  ')}
  ${http}
}
`,
  )
  return place
}

/** `nginx -t` */
export async function checkNginx(options: NginxOptions): Promise<CommandResult> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-nginx-'))
  const result = await run(program, ['-t', '-p', folder, '-c', writeConfiguration(folder, options)], {
    env: { ...options.env },
  })
  rmSync(folder, { recursive: true, force: true })
  return result
}

/** `port`: one that the configuration listens on. */
export async function startNginx(port: number, options: NginxOptions): Promise<Nginx> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-nginx-'))
  const child = spawn(program, ['-p', folder, '-c', writeConfiguration(folder, options)], {
    env: { ...options.env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk
  })
  let ended = false
  child.once('exit', () => {
    ended = true
  })
  const errorLog = () =>
    existsSync(path.join(folder, 'error.log')) ? readFileSync(path.join(folder, 'error.log'), 'utf8') : ''
  const count = (pattern: RegExp) => errorLog().match(pattern)?.length ?? 0

  async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
    while (!(await condition())) {
      if (ended) throw new Error(`nginx ended: ${said}${errorLog()}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
  try {
    await until(() => isListening(port))
  } catch (cause) {
    rmSync(folder, { recursive: true, force: true })
    throw cause
  }

  return {
    folder,
    pid: child.pid ?? 0,
    errorLog,
    async reload() {
      const started = count(/start worker process \d+/g)
      const left = count(/exited with code/g)
      child.kill('SIGHUP')
      const workers = options.workers ?? 1
      await until(
        () => count(/start worker process \d+/g) >= started + workers && count(/exited with code/g) >= left + workers,
      )
    },
    async [Symbol.asyncDispose]() {
      if (!ended) {
        const exit = once(child, 'exit')
        child.kill('SIGTERM')
        await exit
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** One that upgrades itself at SIGUSR2: NGINX does that only when the process that started it is gone. */
export async function startNginxDaemon(port: number, options: NginxOptions): Promise<NginxDaemon> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-nginx-'))
  const configuration = writeConfiguration(folder, options, 'on')
  await runOk(program, ['-p', folder, '-c', configuration], { env: { ...options.env } })
  while (!(await isListening(port))) await new Promise((resolve) => setTimeout(resolve, 10))
  const masterPid = () => Number(readFileSync(path.join(folder, 'nginx.pid'), 'utf8'))
  return {
    folder,
    masterPid,
    errorLog: () => readFileSync(path.join(folder, 'error.log'), 'utf8'),
    async [Symbol.asyncDispose]() {
      const pid = masterPid()
      process.kill(pid, 'SIGTERM')
      while (existsSync(`/proc/${pid}/exe`)) await new Promise((resolve) => setTimeout(resolve, 10))
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
  }).finally(() => socket.destroy()) as Promise<boolean>
}
