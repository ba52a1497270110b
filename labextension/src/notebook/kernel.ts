/** What a kernel knows: which session is its notebook's, and which home it looks at. */
import type { Kernel } from '@jupyterlab/services';

const MIME_TYPE = 'application/vnd.cwm.kernel+json';

/** Evaluated by the kernel; see cwm_jupyter/notebook/toolbar.py. Any other kernel fails at it. */
const FACTS =
  "__import__('cwm_jupyter.notebook.toolbar', fromlist=['facts']).facts()" +
  " if 'cwm_jupyter' in __import__('sys').modules else None";

/** A notebook's session, and the last turn's prompt in it. */
export interface KernelSession {
  name: string;
  tokens: number;
  max_context_tokens: number | null;
  turns: number;
  cached_tokens: number | null;
  computed_tokens: number | null;
}

export interface KernelFacts {
  /** Whether the magics are loaded. */
  magics: boolean;
  home: string | null;
  session: KernelSession | null;
}

export const UNKNOWN: KernelFacts = { magics: false, home: null, session: null };

/** Ask a kernel, after what it runs now; nothing is left in its history or namespace. */
export async function askKernel(kernel: Kernel.IKernelConnection): Promise<KernelFacts> {
  const future = kernel.requestExecute(
    {
      code: '',
      silent: true,
      store_history: false,
      allow_stdin: false,
      user_expressions: { cwm: FACTS }
    },
    true
  );
  try {
    const reply = await future.done;
    const content = reply?.content;
    if (content?.status !== 'ok') {
      return UNKNOWN;
    }
    const given = content.user_expressions?.['cwm'] as
      | { data?: Record<string, unknown> }
      | undefined;
    return (given?.data?.[MIME_TYPE] as KernelFacts | undefined) ?? UNKNOWN;
  } finally {
    future.dispose();
  }
}
