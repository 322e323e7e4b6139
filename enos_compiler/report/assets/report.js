// What a report's page draws.

const report = data.report;
const sections = report.sections;
