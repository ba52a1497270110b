/** The names that the code uses for the API's documents. */
import type { components } from './schema';

type Schemas = components['schemas'];

export type AuditReport = Schemas['AuditReport'];
export type ChunkStrip = Schemas['ChunkStrip'];
export type FreezeReport = Schemas['FreezeReport'];
export type HistoryReport = Schemas['HistoryReport'];
export type JobListing = Schemas['JobListing'];
export type JobView = Schemas['JobView'];
export type LogTail = Schemas['LogTail'];
export type RepairReport = Schemas['RepairReport'];
export type Overview = Schemas['Overview'];
export type Session = Schemas['Session'];
export type SessionStatus = Schemas['SessionStatus'];
export type StackStatus = Schemas['StackStatus'];
export type Statistics = Schemas['Statistics'];
export type Tree = Schemas['Tree'];
export type VerifyReport = Schemas['VerifyReport'];
export type VersionView = Schemas['VersionView'];
export type WarmReport = Schemas['WarmReport'];
export type Window = Schemas['Window'];
export type WindowListing = Schemas['WindowListing'];
export type WindowStatus = Schemas['WindowStatus'];
