package schema

// The tables below are the language: every key of the manifest, what may stand
// there and what it is for. The checks read them, and so does JSONSchema.

// What the enumerations of the language may say.
var (
	varTypes     = []string{"string", "int", "bool", "list", "map"}
	failureModes = []string{"stop", "continue"}
	publishModes = []string{string(PublishTogether), string(PublishEach)}
	lintLevels   = []string{"warning", "error"}
	lintRules    = []string{ // BuildKit's, as of the version in go.mod
		"all", "ConsistentInstructionCasing", "CopyIgnoredFile", "DuplicateStageName", "ExposeInvalidFormat", "ExposeProtoCasing",
		"FromAsCasing", "FromPlatformFlagConstDisallowed", "InvalidBaseImagePlatform", "InvalidDefaultArgInFrom",
		"InvalidDefinitionDescription", "JSONArgsRecommended", "LegacyKeyValueFormat", "MaintainerDeprecated",
		"MultipleInstructionsDisallowed", "NoEmptyContinuation", "RedundantTargetPlatform", "ReservedStageName",
		"SecretsUsedInArgOrEnv", "StageNameCasing", "UndefinedArgInFrom", "UndefinedVar", "WorkdirRelativePath",
	}
	policyLevels   = []string{string(LevelOff), string(LevelWarn), string(LevelError)}
	compressions   = []string{"gzip", "zstd", "none"}
	imageFormats   = []string{"oci", "docker"}
	snapshotModes  = []string{"full", "redo", "time"}
	writeModes     = []string{string(WriteAuto), string(WriteAlways), string(WriteNever)}
	progressStyles = []string{"auto", "tty", "plain", "interleaved", "json", "quiet"}
	skipModes      = []string{string(SkipNever), string(SkipUnchanged), string(SkipPublished)}
	tagRoles       = []string{"identity"}
	tagExpansions  = []string{"major", "minor"}
	provenances    = []string{"min", "max", "true", "false"}
	sbomFormats    = []string{"spdx-json"}
	outputTypes    = []string{"registry", "oci", "docker", "tar", "local", "none"}
	hookTimes      = []string{string(OnSuccess), string(OnFailure), string(Always)}
	inferModes     = []string{"true", "false", "strict"}
	networks       = []string{"default", "none", "host"}
	syncActions    = []string{"sync", "rebuild", "none"}
	runnerTypes    = []string{"local", "docker", "kubernetes"}
	unknownModes   = []string{"all", "error"}
	tagExistsModes = []string{"overwrite", "skip", "fail"}
	triggers       = []string{"notify", "poll", "manual"}
	changeModes    = []string{"restart", "queue", "ignore"}
	levels         = []string{"manifest", "index", "manifest-descriptor", "index-descriptor"}
)

// Patterns of texts. They are compiled only by those who read the JSON Schema.
const (
	namePattern     = `^[a-z0-9]+([._-][a-z0-9]+)*$`
	durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	sizePattern     = `^[0-9]+(\.[0-9]+)?([KMGT]i?)?[bB]?$`
	cpuPattern      = `^([0-9]+(\.[0-9]+)?|[0-9]+m)$`
)

var (
	textShape     = &shape{what: "text", text: true}
	boolShape     = &shape{what: "true or false", bool: true}
	countShape    = &shape{what: "a number", int: true}
	durationShape = &shape{what: "a time such as 30m", text: true, pattern: durationPattern}
	condShape     = &shape{what: "a condition such as git.branch == 'main'", text: true, condition: true}
	namesShape    = &shape{what: "a list of names", list: textShape}
	textsShape    = &shape{what: "a list of texts", list: textShape}
	globsShape    = &shape{what: "a list of patterns", list: textShape}
	mapShape      = &shape{what: "a mapping of names to texts", dict: textShape}
	anyVarValue   = &shape{what: "text, a number, true or false, a list or a mapping",
		text: true, list: textShape, dict: textShape}
	commandShape = &shape{what: "a command: a line for the shell, or a list of words", text: true, list: textShape}
)

// manifestShape is a whole file.
var manifestShape = &shape{what: "a mapping", fields: append([]field{
	{name: "version", shape: &shape{what: "1", words: []string{"1"}},
		about: "Version of the language. Write 1."},
	{name: "name", shape: textShape, about: "Name of the workspace, ${workspace.name}. Default: the name of its directory."},
	{name: "include", shape: &shape{what: "a list of files", list: includeShape}, literal: true,
		about: "Further manifests: a path, a pattern such as services/*/kaniko-build.yaml, or {path: ..., prefix: ...}. Paths in an included file count from its own directory."},
	{name: "envFiles", shape: &shape{what: "a list of files", list: envFileShape}, literal: true,
		about: "Files of NAME=VALUE lines that references to env and the env of variables read. What the environment itself says is stronger."},
	{name: "profiles", shape: &shape{what: "a mapping of profiles", dict: profileShape}, literal: true,
		about: "Changes to this manifest that --profile, or a condition, turns on."},
}, commonFields...)}

// profileShape is what a profile may change.
var profileShape = &shape{what: "a mapping", fields: append([]field{
	{name: "when", shape: condShape, about: "Condition that turns the profile on by itself, such as env.CI == 'true'. --profile none turns all such off."},
	{name: "description", shape: textShape, about: "What the profile is for."},
}, commonFields...)}

// commonFields are the keys of manifests and profiles.
var commonFields = []field{
	{name: "vars", shape: &shape{what: "a mapping of variables", dict: varShape}, literal: true,
		about: "Variables, ${vars.name}. Only declared names exist."},
	{name: "defaults", shape: bodyShape, about: "What every target starts from."},
	{name: "templates", shape: &shape{what: "a mapping of templates", dict: bodyShape, names: true}, literal: true,
		about: "Bodies that targets extend. They are never built."},
	{name: "targets", shape: &shape{what: "a mapping of targets", dict: bodyShape, names: true}, literal: true,
		about: "The images to build, by name."},
	{name: "groups", shape: &shape{what: "a mapping of groups", dict: namesShape, names: true}, literal: true,
		about: "Names for several targets, @name on the command line: targets, patterns, @groups, ...x, x..., and !x for what is left out. The group default is what is built when nothing is named."},
	{name: "secrets", shape: &shape{what: "a mapping of secrets", dict: secretShape}, literal: true,
		about: "Where secrets come from. A target sees those that it lists itself."},
	{name: "ssh", shape: &shape{what: "a mapping of ssh agents", dict: sshShape}, literal: true,
		about: "Keys for RUN --mount=type=ssh, by name. default, the agent of SSH_AUTH_SOCK, is always there."},
	{name: "registries", shape: &shape{what: "a mapping of registries", dict: registryShape}, literal: true,
		about: "How registries are reached, by host."},
	{name: "policy", shape: policyShape, about: "What base images and tags must be like."},
	{name: "run", shape: runShape, about: "How apply behaves when no flag says otherwise."},
	{name: "runner", shape: runnerShape, about: "Where nodes run."},
	{name: "affected", shape: affectedShape, about: "What --affected compares with."},
	{name: "watch", shape: watchShape, about: "How the command watch behaves."},
	{name: "lint", shape: &shape{what: "a mapping", fields: []field{
		{name: "dockerfile", shape: lintShape, about: "Rules for Dockerfiles that have no check directive of their own."},
	}}, about: "What check and builds warn about."},
}

var includeShape = &shape{what: "a path, a pattern or {path: ..., prefix: ...}", text: true, fields: []field{
	{name: "path", shape: textShape, needed: true, about: "File or pattern, from the directory of this file; // is the workspace root."},
	{name: "prefix", shape: textShape, about: "Stands before the names of all that the file declares: with data/ its target etl is data/etl."},
	{name: "optional", shape: boolShape, about: "A file that is not there is no mistake."},
	{name: "git", shape: textShape, about: "Address of the git repository that the file is in. Such a file sees and reaches nothing but its repository unless --allow says so."},
	{name: "ref", shape: textShape, about: "Full commit of the repository; a branch or tag with --allow=unpinned."},
	{name: "with", shape: &shape{what: "a mapping of variables to values", dict: anyVarValue}, about: "Values for variables of a file of another repository."},
}}

var envFileShape = &shape{what: "a path or {path: ..., optional: true}", text: true, fields: []field{
	{name: "path", shape: textShape, needed: true, about: "File of NAME=VALUE lines."},
	{name: "optional", shape: boolShape, about: "A file that is not there is no mistake."},
}}

// bodyShape is a target, a template or the defaults.
var bodyShape = &shape{what: "a mapping", body: true, fields: []field{
	{name: "extends", shape: namesShape, own: true, about: "Templates that this body starts from; later ones are stronger."},
	{name: "context", shape: textShape, about: "What COPY and ADD read from: a directory, git:URL#REF:DIR, or an archive https://…[#[sha256:DIGEST][:DIR]]. Default: the directory of this file."},
	{name: "dockerfile", shape: textShape, insteadOf: "dockerfileInline", about: "The Dockerfile, from the context; // is the workspace root. Default: Dockerfile."},
	{name: "dockerfileInline", shape: textShape, insteadOf: "dockerfile", about: "The Dockerfile itself."},
	{name: "stage", shape: textShape, about: "Stage of the Dockerfile to build. Default: the last."},
	{name: "args", shape: mapShape, about: "Values for ARG. null takes an inherited one away."},
	{name: "contexts", shape: mapShape, about: "Named contexts for FROM, COPY --from and RUN --mount=from: a directory, target:NAME, target?:NAME (its published image unless it is built too), image:REF, oci:DIR, git:URL#REF:DIR or an https address."},
	{name: "image", shape: &shape{what: "a repository or a list of them", text: true, list: textShape}, dflt: `"${target.base}"`,
		about: "Repository of the image, without a tag; several are possible."},
	{name: "tags", shape: &shape{what: "a list of tags", list: tagShape}, late: []string{"input"}, about: "Tags of the image; one with a / or : is a whole name. Empty ones drop out. Default: latest."},
	{name: "tagSuffix", shape: textShape, about: "Stands behind every tag. Default: -VARIANT for the cells of a matrix."},
	{name: "labels", shape: mapShape, about: "Labels of the image."},
	{name: "annotations", shape: mapShape, about: "Annotations, NAME or LEVEL[,LEVEL]:NAME with the levels manifest, index, manifest-descriptor and index-descriptor."},
	{name: "needs", shape: namesShape, about: "Targets to build before this one. Only for order: what a Dockerfile names is found by itself."},
	{name: "deps", shape: depsShape, about: "How edges to other targets are found."},
	{name: "groups", shape: namesShape, own: true, about: "Groups that the target is in."},
	{name: "internal", shape: boolShape, own: true, dflt: "false", about: "Built when something needs it, never pushed."},
	{name: "platforms", shape: &shape{what: "a list of platforms", list: textShape}, about: "Platforms to build for, such as linux/amd64. Default: this machine's."},
	{name: "secrets", shape: &shape{what: "a list of secrets", list: grantShape}, byID: true, about: "Secrets that RUN may mount, and that ADD shows to their hosts: GIT_AUTH_TOKEN, HTTP_AUTH_TOKEN_HOST and others of BuildKit's."},
	{name: "ssh", shape: namesShape, byID: true, about: "ssh agents that RUN may mount."},
	{name: "network", shape: &shape{what: "default, none or host", text: true, words: networks}, about: "Network of RUN steps that do not choose."},
	{name: "noCache", shape: &shape{what: "true, false or a list of stages", bool: true, list: textShape}, about: "Run every step, or those of some stages, whatever is known."},
	{name: "cache", shape: cacheShape, about: "Where results of steps are kept outside the machine."},
	{name: "skip", shape: &shape{what: "never, unchanged or published", text: true, words: skipModes}, dflt: `"never"`,
		about: "When not to build at all: unchanged compares with what this machine built last, published with the identity tag in the registry."},
	{name: "attest", shape: attestShape, about: "What is attested beside the image."},
	{name: "outputs", shape: &shape{what: "a list of outputs", list: outputShape}, about: "What is written besides the registry."},
	{name: "hooks", shape: hooksShape, late: []string{"input", "result"}, about: "Commands that run on this machine before and after the target is built."},
	{name: "inputs", shape: inputsShape, about: "Files that count as inputs of the target, or do not."},
	{name: "resources", shape: resourcesShape, about: "Limits of the target's container; what runs at once follows from them."},
	{name: "timeout", shape: durationShape, about: "Time that building the target may take, such as 30m."},
	{name: "executor", shape: executorShape, about: "How the image is written."},
	{name: "matrix", shape: matrixShape, own: true, about: "Makes many targets of one: every combination of these values, ${matrix.name}."},
	{name: "variant", shape: textShape, own: true, about: "What a cell of the matrix is called, behind the target's name. Default: its values, joined by -."},
	{name: "watch", shape: targetWatchShape, about: "What watch does when files of this target change."},
}}

var depsShape = &shape{what: "a mapping such as {infer: true, weak: [NAME]}", fields: []field{
	{name: "infer", shape: &shape{what: "true, false or strict", bool: true, words: []string{"strict"}}, dflt: "true",
		about: "Whether images that the Dockerfile names make edges to the targets that build them. strict: a FROM whose ARG has no value is an error."},
	{name: "weak", shape: namesShape, about: "Targets whose published image is taken unless they are built in the same run."},
}}

// executorShape says how images are written.
var executorShape = &shape{what: "a mapping such as {reproducible: true}", fields: []field{
	{name: "compression", shape: &shape{what: "gzip, zstd or none", text: true, words: compressions}, dflt: `"gzip"`, about: "Compression of new layers."},
	{name: "compressionLevel", shape: countShape, about: "gzip 1 to 9, zstd 1 to 22."},
	{name: "imageFormat", shape: &shape{what: "oci or docker", text: true, words: imageFormats}, dflt: `"oci"`, about: "Media types of the image."},
	{name: "reproducible", shape: boolShape, dflt: "false", about: "File times of new layers are at most SOURCE_DATE_EPOCH, else the commit's time."},
	{name: "snapshotMode", shape: &shape{what: "full, redo or time", text: true, words: snapshotModes}, about: "How changes are found where a build happens in the root of a container; elsewhere they are found exactly in any case."},
	{name: "extraArgs", shape: textsShape, about: "Flags of kaniko's executor, such as --single-snapshot."},
}}

var tagShape = &shape{what: "text or {tag: ...}", text: true, fields: []field{
	{name: "tag", shape: textShape, needed: true, about: "The tag itself, or a whole name with / or :."},
	{name: "if", shape: condShape, about: "The tag counts only when this holds."},
	{name: "expand", shape: &shape{what: "a list of major and minor", list: &shape{what: "major or minor", text: true, words: tagExpansions}},
		about: "Adds shorter forms of a version: 1.4.2 is 1 (major) and 1.4 (minor) too."},
	{name: "role", shape: &shape{what: "identity", text: true, words: tagRoles}, about: "identity: the tag says what the image was made of; skip: published looks for it."},
}}

var grantShape = &shape{what: "the id of a secret or {id: ..., as: ...}", text: true, fields: []field{
	{name: "id", shape: textShape, needed: true, about: "Name in the section secrets."},
	{name: "as", shape: textShape, about: "id that the Dockerfile mounts it by. Default: the same."},
}}

var cacheShape = &shape{what: "a mapping such as {repo: registry.example.com/shop/cache}", fields: []field{
	{name: "repo", shape: textShape, about: "Repository, or oci:PATH. Empty, as a variable may be, nothing is kept. Default: that of the first image, with /cache."},
	{name: "from", shape: &shape{what: "a list of repositories", text: true, list: textShape}, about: "Further ones, which are only read."},
	{name: "ttl", shape: durationShape, dflt: `"336h"`, about: "How old a result may be."},
	{name: "write", shape: &shape{what: "auto, always or never", text: true, words: writeModes}, dflt: `"auto"`, about: "auto: not where a CI builds a pull request or a fork's merge request."},
	{name: "run", shape: boolShape, dflt: "true", about: "For RUN and WORKDIR."},
	{name: "copy", shape: boolShape, dflt: "true", about: "For COPY and ADD."},
}}

var attestShape = &shape{what: "a mapping such as {provenance: min, sbom: true}", fields: []field{
	{name: "provenance", shape: &shape{what: "min, max, true or false", bool: true, words: provenances}, about: "Says how the image was built."},
	{name: "sbom", shape: &shape{what: "true, false or {format: spdx-json}", bool: true, fields: []field{
		{name: "format", shape: &shape{what: "spdx-json", text: true, words: sbomFormats}, dflt: `"spdx-json"`, about: "Format of the list."},
	}}, about: "Lists the packages in the image."},
}}

var outputShape = &shape{what: "a mapping such as {type: oci, dest: PATH}", fields: []field{
	{name: "type", shape: &shape{what: "registry, oci, docker, tar, local or none", text: true, words: outputTypes}, needed: true,
		about: "registry: pushed, when pushing is on; oci: a layout, an archive if dest ends with .tar; docker: an archive for docker load; tar: the root as an archive; local: the root as a directory; none: nothing."},
	{name: "dest", shape: textShape, about: "Path, from this file."},
}}

var hooksShape = &shape{what: "a mapping such as {before: [{run: make proto}]}", fields: []field{
	{name: "before", shape: &shape{what: "a list of hooks", list: &shape{what: "a mapping such as {run: make proto}", fields: append([]field{
		{name: "inputs", shape: globsShape, about: "Files, as patterns from this file's directory. While none of them has changed the hook is left out."},
	}, hookFields...)}}, about: "Run before the target's files are looked at."},
	{name: "after", shape: &shape{what: "a list of hooks", list: &shape{what: "a mapping such as {run: ./smoke.sh}", fields: append([]field{
		{name: "when", shape: &shape{what: "success, failure or always", text: true, words: hookTimes}, dflt: `"success"`, about: "What the build must have come to."},
		{name: "platforms", shape: &shape{what: "a list of platforms", list: textShape}, about: "Only for these platforms."},
	}, hookFields...)}}, about: "Run when the target is built. ${result.ref} and ${result.digest} name what was made."},
}}

var hookFields = []field{
	{name: "run", shape: commandShape, needed: true, about: "The command, in the directory of this file, with KANIKO_BUILD_TARGET, and after the build KANIKO_BUILD_REF, _DIGEST and _STATUS."},
	{name: "always", shape: boolShape, dflt: "false", about: "Run although the target is skipped."},
}

var inputsShape = &shape{what: "a mapping such as {extra: [go.work]}", fields: []field{
	{name: "extra", shape: globsShape, about: "Further files that the image depends on, from this file's directory."},
	{name: "ignore", shape: globsShape, about: "Files that do not count."},
}}

var resourcesShape = &shape{what: "a mapping such as {cpu: \"2\", memory: 4Gi}", fields: []field{
	{name: "cpu", shape: &shape{what: "a number of CPUs such as 2 or 500m", text: true, pattern: cpuPattern}, about: "CPUs that each step takes up, 0.5 or 500m. A step may use more that nobody else needs."},
	{name: "memory", shape: &shape{what: "a size such as 4Gi", text: true, pattern: sizePattern}, about: "Memory that the image takes up while it is built, 512Mi. A RUN is ended when its image holds more."},
}}

var matrixShape = &shape{what: "a mapping of names to lists", fields: []field{
	{name: "exclude", shape: &shape{what: "a list of cells", list: mapShape}, about: "Combinations to leave out; values that are not named match all."},
	{name: "include", shape: &shape{what: "a list of cells", list: &shape{what: "a cell such as {go: \"1.25\", set: {...}}", fields: []field{
		{name: "set", shape: &shape{what: "a mapping", body: true}, about: "What is different in this cell."},
	}, dict: textShape}}, about: "Combinations besides, or what is different in one."},
}, dict: &shape{what: "a list of values", list: textShape}}

var targetWatchShape = &shape{what: "a mapping such as {rules: [...]}", fields: []field{
	{name: "rules", shape: &shape{what: "a list of rules", list: &shape{what: "a mapping such as {paths: [...], action: sync}", fields: []field{
		{name: "paths", shape: globsShape, needed: true, about: "Files, as patterns from the context."},
		{name: "action", shape: &shape{what: "sync, rebuild or none", text: true, words: syncActions}, needed: true, about: "sync: copy them to where the image runs; rebuild; none."},
		{name: "to", shape: textShape, about: "sync: directory in the container."},
		{name: "via", shape: textShape, about: "sync: where the image runs, kubectl:WORKLOAD, docker:CONTAINER or compose:SERVICE; without it in watch --run."},
		{name: "exec", shape: commandShape, about: "sync: command to run there afterwards."},
	}}}, about: "The first rule that matches a path counts."},
	{name: "onSuccess", shape: watchCommandShape, about: "Run each time this target was built."},
}}

var watchCommandShape = &shape{what: "a mapping such as {run: ./reload.sh}", fields: []field{
	{name: "run", shape: commandShape, needed: true, about: "The command, in the directory of this file."},
}}

var varShape = &shape{what: "a mapping such as {default: ...}", fields: []field{
	{name: "type", shape: &shape{what: "string, int, bool, list or map", text: true, words: varTypes}, about: "Type. Default: that of the default."},
	{name: "default", shape: anyVarValue, null: true, about: "Value when nobody gives one. null: it is null then, and a key with nothing but ${vars.NAME} as if it were not there."},
	{name: "env", shape: &shape{what: "a list of environment variables", text: true, list: textShape}, about: "Environment variables that give it a value; the first that is set counts."},
	{name: "enum", shape: textsShape, about: "The only values."},
	{name: "pattern", shape: textShape, about: "Regular expression that the value must match."},
	{name: "required", shape: boolShape, dflt: "false", about: "It must have a value."},
	{name: "description", shape: textShape, about: "What it is for."},
}}

var secretShape = &shape{what: "a mapping such as {env: NAME} or {file: PATH}", fields: []field{
	{name: "file", shape: textShape, about: "File with the value; ~/ is your home."},
	{name: "env", shape: textShape, about: "Environment variable with the value."},
	{name: "optional", shape: boolShape, dflt: "false", about: "Builds go on without it."},
}}

var sshShape = &shape{what: "a mapping such as {keys: [PATH]}", fields: []field{
	{name: "keys", shape: &shape{what: "a list of key files", list: textShape}, about: "Private keys; ~/ is your home. Without any it is the agent of SSH_AUTH_SOCK."},
}}

var registryShape = &shape{what: "a mapping", fields: []field{
	{name: "mirrors", shape: &shape{what: "a list of registries", list: textShape}, about: "Asked first when pulling, in order."},
	{name: "insecure", shape: boolShape, dflt: "false", about: "Plain http, or https with any certificate."},
	{name: "fallback", shape: boolShape, dflt: "true", about: "Ask the registry itself when no mirror has an image."},
	{name: "ca", shape: textShape, about: "PEM file of certificates to trust besides."},
	{name: "clientCert", shape: textShape, about: "PEM file of a client certificate."},
	{name: "clientKey", shape: textShape, about: "PEM file of its key."},
	{name: "onTagExists", shape: &shape{what: "overwrite, skip or fail", text: true, words: tagExistsModes}, dflt: `"overwrite"`, about: "What happens when a tag is there already."},
	{name: "retries", shape: countShape, about: "How often a request is tried again."},
}}

var policyShape = &shape{what: "a mapping such as {pinBases: warn}", fields: []field{
	{name: "pinBases", shape: &shape{what: "off, warn or error", text: true, words: policyLevels}, dflt: `"off"`, about: "Base images are to be named by digest."},
	{name: "allowedBases", shape: globsShape, about: "The only images to build on, as patterns such as docker.io/library/* or reg.example.com/**. Targets of the manifest are always allowed."},
	{name: "forbidTags", shape: globsShape, about: "Tags that no target may have."},
}}

var lintShape = &shape{what: "a mapping such as {skip: [RULE], fail: warning}", fields: []field{
	{name: "skip", shape: &shape{what: "a list of rules", list: &shape{what: "a rule", text: true, words: lintRules}}, about: "Rules that are left out, by BuildKit's names, or all."},
	{name: "fail", shape: &shape{what: "warning or error", text: true, words: lintLevels}, dflt: `"error"`, about: "warning: what a rule finds is a mistake."},
}}

var runShape = &shape{what: "a mapping", fields: []field{
	{name: "jobs", shape: &shape{what: "auto or a number", int: true, words: []string{"auto"}}, dflt: `"auto"`, about: "Steps that run at once, over all images."},
	{name: "push", shape: boolShape, dflt: "false", about: "Push what was built."},
	{name: "publish", shape: &shape{what: "together or each", text: true, words: publishModes}, dflt: `"together"`, about: "together: tags are put when every image is built; each: as soon as its own is."},
	{name: "onFailure", shape: &shape{what: "stop or continue", text: true, words: failureModes}, dflt: `"stop"`, about: "continue: go on with what does not depend on the failure."},
	{name: "progress", shape: &shape{what: "auto, tty, plain, interleaved, json or quiet", text: true, words: progressStyles}, dflt: `"auto"`, about: "How progress is shown."},
	{name: "metadataFile", shape: textShape, about: "File for what was built, as JSON."},
	{name: "digestDir", shape: textShape, about: "Directory for a file with the digest of each image."},
}}

var runnerShape = &shape{what: "a mapping such as {type: local}", fields: []field{
	{name: "type", shape: &shape{what: "local, docker or kubernetes", text: true, words: runnerTypes}, dflt: `"local"`, about: "Where nodes run: on this machine, in containers of an engine, or in pods."},
	{name: "kubernetes", shape: &shape{what: "a mapping", fields: []field{
		{name: "context", shape: textShape, about: "Context of the kubeconfig. Default: its current one; in a pod without a kubeconfig, the pod's service account."},
		{name: "namespace", shape: textShape, about: "Namespace of the pods. Default: that of the context."},
		{name: "serviceAccount", shape: textShape, about: "Service account of the pods, whose token they do not get."},
		{name: "nodeSelector", shape: &shape{what: "a mapping of platforms to labels of nodes", dict: mapShape}, about: "By platform, labels that a node must have. Default: the architecture of the RUN steps."},
		{name: "tolerations", shape: &shape{what: "a list of tolerations", list: &shape{what: "a mapping such as {key: builds, operator: Exists}", fields: []field{
			{name: "key", shape: textShape, about: "Key of the taint; without it all."},
			{name: "operator", shape: &shape{what: "Exists or Equal", text: true, words: []string{"Exists", "Equal"}}, about: "Whether the value counts."},
			{name: "value", shape: textShape, about: "Value of the taint."},
			{name: "effect", shape: &shape{what: "NoSchedule, PreferNoSchedule or NoExecute", text: true, words: []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}}, about: "Effect of the taint; without it all."},
		}}}, about: "Taints of nodes that pods may run on nonetheless."},
		{name: "image", shape: textShape, about: "Image of the pods, of this version of kaniko-build. Default: kaniko-build/executor:latest."},
		{name: "imagePullSecrets", shape: namesShape, about: "Secrets of the namespace that the image is pulled with."},
		{name: "startTimeout", shape: durationShape, dflt: `"10m"`, about: "How long a pod may take until it runs."},
	}}, about: "For the type kubernetes."},
}}

var affectedShape = &shape{what: "a mapping such as {base: origin/main}", fields: []field{
	{name: "base", shape: textShape, about: "Revision to compare with, by its merge base."},
	{name: "global", shape: globsShape, about: "Files that affect everything."},
	{name: "onUnknown", shape: &shape{what: "all or error", text: true, words: unknownModes}, dflt: `"all"`, about: "What happens when the history is not there."},
}}

var watchShape = &shape{what: "a mapping such as {debounce: 300ms}", fields: []field{
	{name: "trigger", shape: &shape{what: "notify, poll or manual", text: true, words: triggers}, dflt: `"notify"`, about: "How changes are noticed."},
	{name: "debounce", shape: durationShape, dflt: `"300ms"`, about: "Quiet time before a build."},
	{name: "maxWait", shape: durationShape, dflt: `"10s"`, about: "Longest wait for quiet."},
	{name: "pollInterval", shape: durationShape, dflt: `"2s"`, about: "For the trigger poll."},
	{name: "onChange", shape: &shape{what: "restart, queue or ignore", text: true, words: changeModes}, dflt: `"restart"`, about: "What a change does to a build that runs."},
	{name: "ignore", shape: globsShape, about: "Files whose changes do not count."},
	{name: "onSuccess", shape: watchCommandShape, about: "Run after each build that succeeded."},
	{name: "onFailure", shape: watchCommandShape, about: "Run after each build in which something failed, such as notify-send."},
}}
