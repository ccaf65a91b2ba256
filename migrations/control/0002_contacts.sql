-- Who is told what: the people of an account by id, and where its webhook goes. Settings of the API that must not
-- stand in the log: addresses of people can be erased here, and secrets are for us and the receiver alone.
create table control.contacts (
    account_id               text        collate "C" primary key,
    admins                   json        not null,  -- [{"id","name","email"}], in order; name and email may be absent
    users                    json        not null,  -- the same for users
    webhook_url              text,                  -- null: no webhook
    webhook_secret           text,                  -- whsec_<base64>: signs; never shown again
    webhook_secret_old       text,                  -- the one before, after a rotation
    webhook_secret_old_until timestamptz,           -- until then the old one signs along
    updated_at               timestamptz not null,
    check (webhook_url is null or webhook_secret is not null),
    check ((webhook_secret_old is null) = (webhook_secret_old_until is null))
);
