/** `hsmgate serve`: runs the gateway of a configuration until it is told to stop. */
import type { Command } from 'commander'
import { findPredecessor } from '../../hand-over.ts'
import { addAction } from '../action.ts'
import { loadRunnableConfig } from '../effective-config.ts'
import { runGateway } from '../run-gateway.ts'
import { formatFields, show, type Terminal } from '../terminal.ts'

export function addServe(program: Command, terminal: Terminal): void {
  const command = program
    .command('serve')
    .description(
      'run the gateway; SIGTERM or Ctrl-C drains and ends it, SIGHUP reads the configuration again, SIGUSR2 hands over to a new process',
    )
  addAction(command, async (options) => {
    const { openGateway } = await import('../../gateway.ts')
    const predecessor = findPredecessor()
    await runGateway(terminal, {
      load: () => loadRunnableConfig(options, terminal),
      open: (config) => openGateway(config, predecessor === undefined ? {} : { predecessor }),
      hangUp: 'reload',
      handsOver: true,
      async ready({ endpoints }, { file }) {
        show(
          terminal,
          options,
          { ready: true, endpoints },
          () => `hsmgate serves ${file}\n${formatEndpoints(endpoints)}`,
        )
      },
    })
  })
}

/** Endpoints that are open, one a line. */
export function formatEndpoints(endpoints: {
  readonly kms?: string
  readonly xks?: string
  readonly operator?: string
  readonly operatorSocket: string
  readonly offload: readonly string[]
}): string {
  const { kms, xks, operator, operatorSocket, offload } = endpoints
  return formatFields([
    ...(kms === undefined ? [] : [['  KMS', kms] as const]),
    ...(xks === undefined ? [] : [['  XKS', xks] as const]),
    ...(operator === undefined ? [] : [['  operator', `${operator}/metrics, /healthz, /readyz`] as const]),
    ['  socket', operatorSocket],
    ...offload.map((endpoint) => ['  signing', endpoint] as const),
  ])
}
