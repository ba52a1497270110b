/** Cells that are put into notebooks and run there. */
import type { ISessionContext } from '@jupyterlab/apputils';
import { NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { Contents } from '@jupyterlab/services';

export const LOAD = '%load_ext cwm_jupyter';

/** Put code into the active cell if that is empty, else into a new one below it, and run it. */
export async function insertAndRun(panel: NotebookPanel, code: string): Promise<boolean> {
  const notebook = panel.content;
  const active = notebook.activeCell?.model;
  if (active?.type !== 'code' || active.sharedModel.getSource().trim() !== '') {
    NotebookActions.insertBelow(notebook);
  }
  notebook.activeCell!.model.sharedModel.setSource(code);
  return NotebookActions.run(notebook, panel.sessionContext as ISessionContext);
}

/** A code cell as notebooks store it, and as they take it when it is dropped. */
export function codeCell(source: string): Record<string, unknown> {
  return {
    cell_type: 'code',
    source,
    metadata: { trusted: true },
    outputs: [],
    execution_count: null
  };
}

/** Write a new notebook with these cells; the path is the server's choice. */
export async function writeNotebook(
  contents: Contents.IManager,
  folder: string,
  kernel: { name: string; display_name: string; language: string } | null,
  sources: readonly string[]
): Promise<string> {
  const made = await contents.newUntitled({ path: folder, type: 'notebook' });
  await contents.save(made.path, {
    type: 'notebook',
    format: 'json',
    content: {
      cells: sources.map(source => ({ ...codeCell(source), metadata: {} })),
      metadata: kernel === null ? {} : { kernelspec: kernel },
      nbformat: 4,
      nbformat_minor: 4
    }
  });
  return made.path;
}
