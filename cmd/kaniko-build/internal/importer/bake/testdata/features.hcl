# Licence of the file, which is about nothing below.

// Where images go.
variable "REGISTRY" {
  default = "registry.example.com/shop"
}
variable "TAG" { default = "latest" }
variable "GO_VERSION" { default = null }
variable "EMPTY" {}
variable "DEBUG" {
  default = false
}
variable "JOBS" { default = 4 }
variable "PLATFORMS" {
  default = ["linux/amd64", "linux/arm64"]
}
variable "FULL" { default = "${REGISTRY}/full:${TAG}" }
variable "LEVEL" {
  type        = string
  default     = "info"
  description = "how much is logged"
  validation {
    condition     = contains(["info", "debug"], LEVEL)
    error_message = "info or debug"
  }
}
variable "VERSION" {
  default = "1.2.3"
  validation {
    condition     = can(regex("^[0-9.]+$", VERSION))
    error_message = "numbers"
  }
  validation {
    condition     = length(VERSION) < 20
    error_message = "short"
  }
}
variable "UNUSED" { default = "x" }

owner = "shop"

function "tag" {
  params = [name]
  result = ["${REGISTRY}/${name}:${TAG}", notequal("", EMPTY) ? "${REGISTRY}/${name}:${EMPTY}" : ""]
}
function "all" {
  params          = []
  variadic_params = rest
  result          = concat(rest...)
}

group "default" { targets = ["api", "tools"] }
group "tools" { targets = ["lint", "everything"] }
group "everything" { targets = ["matrix", "variants"] }

target "_common" {
  args = {
    GO_VERSION = GO_VERSION
    LEVEL      = LEVEL
    DROPPED    = null
    DEBUG      = DEBUG
    JOBS       = JOBS
  }
  labels = {
    "org.opencontainers.image.vendor"  = owner
    "org.opencontainers.image.created" = timestamp()
  }
  cache-from = ["type=registry,ref=registry.example.com/shop/cache"]
  cache-to   = ["type=registry,ref=registry.example.com/shop/cache,mode=max", "type=gha"]
}

/* The service
   that people see. */
target "api" {
  inherits   = ["_common"]
  context    = "services/api"
  dockerfile = "./build/Dockerfile"
  target     = "release"
  tags       = tag("api")
  platforms  = PLATFORMS
  contexts = {
    base   = "target:base"
    alpine = "docker-image://alpine:3.22"
    src    = "https://git.example.com/src.git#v1:lib"
    local  = "../shared"
  }
  secret = ["id=npm,src=.npmrc", "type=env,id=TOKEN", { id = "gh", env = "GITHUB_TOKEN" }]
  ssh    = ["default", { id = "deploy", paths = ["~/.ssh/deploy"] }]
  attest = ["type=provenance,mode=max", { type = "sbom" }]
  output = ["type=registry", { type = "oci", dest = "dist/api.tar" }]
}

target "base" {
  context = "images/base"
  tags    = ["${REGISTRY}/base", "docker.io/shop/base"]
}

target "derived" {
  inherits        = ["api"]
  tags            = [FULL, "ghcr.io/shop/derived:v${VERSION}", DEBUG ? "ghcr.io/shop/derived:debug" : ""]
  no-cache-filter = ["fetch"]
  network         = "none"
  args            = { UPPER = upper(LEVEL), WHEN = VERSION == "" ? "none" : "some" }
}

target "lint" {
  dockerfile-inline = <<EOT
FROM alpine
RUN echo "$HOME $${vars.x} ${TAG}"
EOT
  output      = ["type=cacheonly"]
  no-cache    = true
  pull        = true
  annotations = ["index,manifest:org.example.team=shop"]
}

target "check" {
  inherits = ["_common"]
  call     = "check"
}

target "matrix" {
  name = "matrix-${go}-${replace(flavor, ".", "-")}"
  matrix = {
    go     = ["one", "two"]
    flavor = ["a.b", "c"]
  }
  args = { GO = go }
  tags = ["shop/matrix:${go}-${flavor}"]
}

target "variants" {
  name = item.name
  matrix = {
    item = [{ name = "small", size = 1 }, { name = "large", size = 9 }]
  }
  args = { SIZE = item.size }
  tags = all(tag(item.name), ["shop/${item.name}:x"])
}

target "odd" {
  context       = BAKE_CMD_CONTEXT
  entitlements  = ["network.host"]
  extra-hosts   = { host = "10.0.0.1" }
  shm-size      = "1g"
  ulimits       = ["nofile=1024:1024"]
  colour        = "red"
  tags          = [formatdate("YYYY", timestamp())]
}

variable "MIRROR" {
  default = ""
}

variable "FLAT" {
  default = false
}

target "listed" {
  tags = notequal("", MIRROR) ? formatlist(FLAT ? "${MIRROR}:listed-%s" : "${MIRROR}/listed:%s", compact(["latest", VERSION])) : []
  labels = { "${TAG}.name" = format("%s-100%%", "x") }
}

target "exported" {
  output = ["type=image,name=registry.example.com/exported:1,push=true"]
  secret = [{ id = "lost", src = "${HOME}/lost" }]
}

group "most" {
  targets = ["default", "listed"]
}
