/** A widget that is kept up to date while it can be seen, and asks nothing while it cannot. */
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

export abstract class Watching extends Widget {
  /** It can be seen from now on; it may have been so before. */
  protected abstract begin(): void;

  /** Nobody sees it any more. */
  protected abstract rest(): void;

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    if (this.isVisible) {
      this.begin();
    }
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.begin();
  }

  protected onBeforeHide(message: Message): void {
    this.rest();
    super.onBeforeHide(message);
  }

  protected onBeforeDetach(message: Message): void {
    this.rest();
    super.onBeforeDetach(message);
  }
}
