# The server as a small image without a shell, run by a user without rights.
#
#   docker build -t malmoi .
#   docker run -p 8080:8080 -v $PWD/models:/models:ro malmoi --model /models/bert --api-key-file /models/keys.txt

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin malmoi

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/malmoi /usr/local/bin/malmoi
EXPOSE 8080
USER nonroot
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/malmoi", "serve", "--host", "0.0.0.0", "--port", "8080", "--log", "json"]
