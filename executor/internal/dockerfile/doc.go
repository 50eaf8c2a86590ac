// Package dockerfile turns the text of a Dockerfile into a Program: the stages
// that a target needs, each a list of typed steps in which every word is
// expanded, and the configuration and history of the image that comes out.
//
//	text --Parse--> File --Resolve(base configurations)--> Program
//	                 |                                       |
//	                 Images, References                      Stages, Warnings
//
// A stage is what one FROM begins. A step is one instruction of it, or one
// ONBUILD trigger of its base. A source is where files come from: nothing
// (scratch), an image, another stage, or a context. A named context is given
// from outside and stands in front of stages and images of its name.
//
// The language is that of BuildKit's stable frontend, whose parser we use; what
// instructions mean (which words are expanded with what, the order of the
// environment, texts of the history, what is inherited) follows BuildKit to the
// letter, also where it surprises. Nothing is read or fetched here: the caller
// hands in the text and, when asked, the configurations of images.
//
// Mistakes are *diag.Problem, all that can be told at once as diag.Problems, in
// BuildKit's words where people search for them. Stages that the target does
// not need are parsed, but neither expanded nor are their images asked for.
// A Program is plain data: it survives JSON, and does not change.
//
// Windows images are not supported.
package dockerfile
