-- The projector writes the read model alone. Whichever service starts first notes the journal's identity.
grant usage  on schema control to ledger_projector;
grant select on control.migration, control.generation to ledger_projector;
grant select, insert on control.log_identity to ledger_projector;
