variable "TAG" { default = "dev" }
variable "GO" { default = "1.24" }
group "default" { targets = ["api", "web"] }
# The service.
target "api" {
  context = "api"
  args = { GO = GO, MODE = "plain" }
  labels = { who = "us" }
  tags = ["registry.example.com/api:${TAG}"]
  platforms = ["linux/amd64"]
  secret = ["id=npm,src=npmrc"]
  cache-from = ["type=registry,ref=registry.example.com/cache"]
}
target "web" { context = "web" }
