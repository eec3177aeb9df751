import { translatePage } from "./language.ts";

translatePage();
