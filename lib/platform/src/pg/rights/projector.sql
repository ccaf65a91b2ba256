-- The projector writes the read model, and what the audit log has signed. Whichever service starts first notes the
-- journal's identity.
grant usage  on schema control to ledger_projector;
grant select on control.migration, control.generation to ledger_projector;
grant select, insert on control.log_identity to ledger_projector;
grant select, insert on control.log_origin to ledger_projector;
grant select, insert, update on control.log_key, control.log_head, control.log_checkpoint, control.log_witness
    to ledger_projector;
