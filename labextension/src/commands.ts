/** The ids of the commands; users' shortcuts and menus know them too. */
export namespace CommandIDs {
  export const showWindows = 'cwm:show-windows';
  export const openDashboard = 'cwm:open-dashboard';
  export const freeze = 'cwm:freeze';
  export const thawHere = 'cwm:thaw-here';
  export const thawNew = 'cwm:thaw-new';
  export const inspect = 'cwm:inspect';
  export const clone = 'cwm:clone';
  export const rename = 'cwm:rename';
  export const tags = 'cwm:tags';
  export const note = 'cwm:note';
  export const pin = 'cwm:pin';
  export const verify = 'cwm:verify';
  export const prefetch = 'cwm:prefetch';
  export const repair = 'cwm:repair';
  export const copyThaw = 'cwm:copy-thaw';
  export const remove = 'cwm:delete';
  export const undo = 'cwm:undo-delete';
}
