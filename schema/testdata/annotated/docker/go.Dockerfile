ARG GO_VERSION
FROM golang:${GO_VERSION} AS build
ARG SERVICE
COPY --from=protos . /protos
RUN --mount=type=secret,id=gh go build -o /out/ ./cmd/${SERVICE}
FROM base AS dev
COPY --from=build /out/ /
FROM dev AS debug
FROM dev AS release
