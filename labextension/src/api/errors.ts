/** What the server's refusals and failures are here. */

/** An error of the server's, or of the way to it (`status` 0). */
export class CWMError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly hint: string | null = null,
    readonly field: string | null = null
  ) {
    super(message);
    this.name = 'CWMError';
  }

  /** The message and what to do about it, for people. */
  get text(): string {
    return this.hint === null ? this.message : `${this.message} ${this.hint}`;
  }

  /** An error from the document that the server's errors are, or from whatever else came. */
  static of(document: unknown, status: number): CWMError {
    const error = document as Partial<{
      message: string;
      code: string;
      hint: string | null;
      context: { field?: string };
    }> | null;
    if (typeof error?.message !== 'string') {
      return new CWMError(`The server answered ${status}.`, status, 'server.unexpected');
    }
    return new CWMError(
      error.message,
      status,
      error.code ?? 'server.unexpected',
      error.hint ?? null,
      error.context?.field ?? null
    );
  }
}

/** What to show of whatever was thrown. */
export function told(error: unknown): string {
  if (error instanceof CWMError) {
    return error.text;
  }
  return error instanceof Error ? error.message : String(error);
}
