# What files of others do: forms of one image, names made in a matrix, and
# attributes that say less than what is inherited.
variable "CACHE_TO" {
  default = ""
}
variable "CACHE_FROM" {
  default = "type=registry,ref=registry.example.com/cache:main"
}
variable "GO_VERSION" {
  default = null
}
target "docker-metadata-action" {
  tags = ["app:local"]
}
target "_binary" {
  target     = "binary"
  args       = { GO_VERSION = "1.26" }
  network    = "none"
  no-cache   = true
  output     = ["bin/build"]
  platforms  = ["linux/amd64", "linux/arm64"]
  cache-from = [CACHE_FROM]
  cache-to   = [CACHE_TO]
  attest     = ["type=provenance,mode=max", "type=sbom"]
}
target "binary" {
  inherits = ["_binary"]
}
target "image" {
  inherits = ["_binary", "docker-metadata-action"]
  args     = { GO_VERSION = GO_VERSION }
  output   = ["type=image"]
}
target "image-local" {
  inherits  = ["image"]
  output    = ["type=docker"]
  platforms = ["local"]
  no-cache  = false
  network   = "default"
  attest    = ["type=provenance,disabled=true", { type = "sbom", disabled = true }]
  target    = ""
}
target "untagged" {
  inherits = ["image"]
  tags     = []
}
group "nginx" {
  targets = ["commons", "nginx"]
}
target "commons" {}
target "nginx" {
  contexts = { "lagoon/commons" = "target:commons" }
}
target "drupal" {
  contexts = { "lagoon/nginx" = "target:nginx" }
}
target "_distro-debian12" {
  args = { DISTRO = "debian" }
}
target "_distro-fedora43" {
  args = { DISTRO = "fedora" }
}
target "builder-debian12" {}
target "builder-fedora43" {}
target "pkg" {
  name     = "pkg-${distro}"
  matrix   = { distro = ["debian12", "fedora43"] }
  inherits = ["_distro-${distro}"]
  contexts = { build = "target:builder-${distro}" }
}
# What is laid again over what inherits it.
target "_common" {
  args   = { A = "1", B = "1" }
  target = "common"
  secret = ["id=s,env=S"]
}
target "other" {
  inherits = ["_common"]
  args     = { A = "2" }
  target   = "other"
}
target "again" {
  inherits = ["other", "_common"]
}
target "once" {
  inherits = ["_common", "other"]
}
target "missing" {
  args = { RELEASE = RELEASE_VERSION }
}
