# One image for all services: `ledger serve command-api`, `ledger serve projector` and so on.
FROM rust:1.95.0-bookworm AS build
# The image brings this compiler; rust-toolchain.toml would fetch clippy and rustfmt as well.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p ledger --no-default-features \
    && install -D target/release/ledger /out/ledger

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home ledger \
    && install -d -o ledger -m 0700 /var/lib/ledger
COPY --from=build /out/ledger /usr/local/bin/ledger
USER ledger
EXPOSE 8080
ENTRYPOINT ["ledger"]
CMD ["--help"]
