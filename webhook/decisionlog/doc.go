// Package decisionlog sends decisions to a log service in the format of OPA's decision logs: arrays of events as gzipped
// JSON, by POST (https://www.openpolicyagent.org/docs/management-decision-logs). So what collects the decisions of OPA
// collects those of Hallmark.
//
// It works behind requests and keeps none of them waiting. Events wait in a bounded buffer until a batch is sent; while
// the service fails, the oldest are dropped, and counted.
package decisionlog
