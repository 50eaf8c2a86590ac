package schema

// The tables below are the language: every key of the manifest, what may stand
// there, and which keys are known but not built yet. The checks read them, and
// so can whatever else describes the language.

// What the enumerations of the language may say.
var (
	varTypes       = []string{"string", "int", "bool", "list", "map"}
	failureModes   = []string{"stop", "continue"}
	lintLevels     = []string{"warning", "error"}
	compressions   = []string{"gzip", "zstd", "none"}
	imageFormats   = []string{"oci", "docker"}
	writeModes     = []string{string(WriteAuto), string(WriteAlways), string(WriteNever)}
	progressStyles = []string{"auto", "tty", "plain", "interleaved", "json", "quiet"}
)

var (
	textShape   = &shape{what: "text", text: true}
	boolShape   = &shape{what: "true or false", bool: true}
	namesShape  = &shape{what: "a list of names", list: textShape}
	textsShape  = &shape{what: "a list of texts", list: textShape}
	mapShape    = &shape{what: "a mapping of names to texts", dict: textShape}
	anyVarValue = &shape{what: "text, a number, true or false, a list or a mapping",
		text: true, list: textShape, dict: textShape}
)

// manifestShape is a whole file.
var manifestShape = &shape{what: "a mapping", fields: []field{
	{name: "version", shape: &shape{what: "1", words: []string{"1"}}},
	{name: "name", shape: textShape},
	{name: "vars", shape: &shape{what: "a mapping of variables", dict: varShape}},
	{name: "defaults", shape: bodyShape},
	{name: "templates", shape: &shape{what: "a mapping of templates", dict: bodyShape}},
	{name: "targets", shape: &shape{what: "a mapping of targets", dict: bodyShape}},
	{name: "groups", shape: &shape{what: "a mapping of groups", dict: namesShape}},
	{name: "secrets", shape: &shape{what: "a mapping of secrets", dict: secretShape}},
	{name: "ssh", shape: &shape{what: "a mapping of ssh agents", dict: sshShape}},
	{name: "registries", shape: &shape{what: "a mapping of registries", dict: registryShape}},
	{name: "run", shape: runShape},
	{name: "include"}, {name: "envFiles"}, {name: "policy"}, {name: "profiles"},
	{name: "runner"}, {name: "affected"}, {name: "watch"},
	{name: "lint", shape: &shape{what: "a mapping", fields: []field{{name: "dockerfile", shape: lintShape}}}},
}}

// bodyShape is a target, a template or the defaults.
var bodyShape = &shape{what: "a mapping", fields: []field{
	{name: "extends", shape: namesShape, own: true},
	{name: "context", shape: textShape},
	{name: "dockerfile", shape: textShape, insteadOf: "dockerfileInline"},
	{name: "dockerfileInline", shape: textShape, insteadOf: "dockerfile"},
	{name: "stage", shape: textShape},
	{name: "args", shape: mapShape},
	{name: "contexts", shape: mapShape},
	{name: "image", shape: &shape{what: "a repository or a list of them", text: true, list: textShape}},
	{name: "tags", shape: &shape{what: "a list of tags", list: tagShape}},
	{name: "labels", shape: mapShape},
	{name: "needs", shape: namesShape},
	{name: "groups", shape: namesShape, own: true},
	{name: "internal", shape: boolShape, own: true},
	{name: "platforms", shape: &shape{what: "a list of platforms", list: textShape}},
	{name: "secrets", shape: &shape{what: "a list of secrets", list: grantShape}, byID: true},
	{name: "ssh", shape: namesShape, byID: true},
	{name: "noCache", shape: &shape{what: "true, false or a list of stages", bool: true, list: textShape}},
	{name: "cache", shape: cacheShape},
	{name: "executor", shape: executorShape},
	{name: "annotations"}, {name: "attest"}, {name: "deps"},
	{name: "hooks"}, {name: "inputs"}, {name: "matrix", own: true}, {name: "outputs"}, {name: "resources"},
	{name: "skip"}, {name: "tagSuffix"}, {name: "timeout"}, {name: "variant", own: true}, {name: "watch"},
}}

// executorShape says how images are written.
var executorShape = &shape{what: "a mapping such as {reproducible: true}", fields: []field{
	{name: "compression", shape: &shape{what: "gzip, zstd or none", text: true, words: compressions}},
	{name: "compressionLevel", shape: &shape{what: "a number", int: true}},
	{name: "imageFormat", shape: &shape{what: "oci or docker", text: true, words: imageFormats}},
	{name: "reproducible", shape: boolShape},
	{name: "snapshotMode"}, {name: "extraArgs"},
}}

var tagShape = &shape{what: "text or {tag: ...}", text: true, fields: []field{
	{name: "tag", shape: textShape, needed: true},
	{name: "if"}, {name: "expand"}, {name: "role"},
}}

var grantShape = &shape{what: "the id of a secret or {id: ..., as: ...}", text: true, fields: []field{
	{name: "id", shape: textShape, needed: true},
	{name: "as", shape: textShape},
}}

var cacheShape = &shape{what: "a mapping such as {repo: registry.example.com/shop/cache}", fields: []field{
	{name: "repo", shape: textShape},
	{name: "from", shape: &shape{what: "a list of repositories", text: true, list: textShape}},
	{name: "ttl", shape: textShape},
	{name: "write", shape: &shape{what: "auto, always or never", text: true, words: writeModes}},
	{name: "run", shape: boolShape},
	{name: "copy", shape: boolShape},
}}

var varShape = &shape{what: "a mapping such as {default: ...}", fields: []field{
	{name: "type", shape: &shape{what: "string, int, bool, list or map", text: true, words: varTypes}},
	{name: "default", shape: anyVarValue},
	{name: "env", shape: &shape{what: "a list of environment variables", text: true, list: textShape}},
	{name: "enum", shape: textsShape},
	{name: "pattern", shape: textShape},
	{name: "required", shape: boolShape},
	{name: "description", shape: textShape},
}}

var secretShape = &shape{what: "a mapping such as {env: NAME} or {file: PATH}", fields: []field{
	{name: "file", shape: textShape},
	{name: "env", shape: textShape},
	{name: "optional", shape: boolShape},
}}

var sshShape = &shape{what: "a mapping such as {keys: [PATH]}", fields: []field{
	{name: "keys", shape: &shape{what: "a list of key files", list: textShape}},
}}

var registryShape = &shape{what: "a mapping", fields: []field{
	{name: "mirrors", shape: &shape{what: "a list of registries", list: textShape}},
	{name: "insecure", shape: boolShape},
	{name: "fallback", shape: boolShape},
	{name: "ca", shape: textShape},
	{name: "clientCert"}, {name: "clientKey"}, {name: "onTagExists"}, {name: "retries"},
}}

var lintShape = &shape{what: "a mapping such as {skip: [RULE], fail: warning}", fields: []field{
	{name: "skip", shape: &shape{what: "a list of rules", list: textShape}},
	{name: "fail", shape: &shape{what: "warning or error", text: true, words: lintLevels}},
}}

var runShape = &shape{what: "a mapping", fields: []field{
	{name: "jobs", shape: &shape{what: "auto or a number", int: true, words: []string{"auto"}}},
	{name: "push", shape: boolShape},
	{name: "onFailure", shape: &shape{what: "stop or continue", text: true, words: failureModes}},
	{name: "progress", shape: &shape{what: "auto, tty, plain, interleaved, json or quiet", text: true, words: progressStyles}},
	{name: "metadataFile", shape: textShape},
	{name: "publish"}, {name: "digestDir"}, {name: "network"},
}}
